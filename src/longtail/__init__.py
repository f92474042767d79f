"""Train, adapt and judge classifiers when most classes are rare.

`ClassPrior` is the class mix as a value; `losses` and `shift` serve any loop of your own; `train`,
`evaluate`, `predict` and `report` are the commands of the same names.
"""

import importlib
from typing import TYPE_CHECKING, Any

from longtail import losses, shift
from longtail.prior import ClassPrior

if TYPE_CHECKING:
    from longtail.api import evaluate, predict, report, train

__all__ = ["ClassPrior", "evaluate", "losses", "predict", "report", "shift", "train"]


def __getattr__(name: str) -> Any:
    """Loads the commands only when they are asked for: they need more than `import longtail`."""
    if name in ("evaluate", "predict", "report", "train"):
        return getattr(importlib.import_module("longtail.api"), name)
    raise AttributeError(f"module 'longtail' has no attribute {name!r}")

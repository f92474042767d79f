"""Train, adapt and judge classifiers when most classes are rare.

`ClassPrior` is the class mix as a value; `losses` and `shift` serve any loop of your own; `train`,
`evaluate` and `predict` are the commands of the same names; `longtail.api` has all of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longtail import losses, shift
    from longtail.api import evaluate, predict, train
    from longtail.prior import ClassPrior

__all__ = ["ClassPrior", "evaluate", "losses", "predict", "shift", "train"]
HOMES = {"ClassPrior": "prior", "evaluate": "api", "predict": "api", "train": "api"}


def __getattr__(name: str) -> Any:
    """Loads what is asked for when it is asked for: `longtail --help` need not wait for PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{HOMES.get(name, name)}")
    return getattr(module, name) if name in HOMES else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

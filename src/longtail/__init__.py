"""Train, adapt and evaluate classifiers when most classes are rare.

`ClassPrior` is the class prior; `train`, `evaluate` and `predict` are the commands of the same
names, and `api` has all of them; the sub-packages can be used in any training loop of your own.
"""

import importlib
from typing import TYPE_CHECKING, Any

from longtail.version import VERSION

if TYPE_CHECKING:
    from longtail import (
        api,
        augment,
        data,
        losses,
        memory,
        methods,
        metrics,
        models,
        segmentation,
        shift,
        sklearn,
        training,
    )
    from longtail.api import advise, evaluate, predict, train
    from longtail.prior import ClassPrior
    from longtail.weights import load

__version__ = VERSION
__all__ = [
    "ClassPrior",
    "__version__",
    "advise",
    "api",
    "augment",
    "data",
    "evaluate",
    "load",
    "losses",
    "memory",
    "methods",
    "metrics",
    "models",
    "predict",
    "segmentation",
    "shift",
    "sklearn",
    "train",
    "training",
]
HOMES = {
    "ClassPrior": "prior",
    "advise": "api",
    "evaluate": "api",
    "load": "weights",
    "predict": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    """Loads a name at its first use, so that `longtail --help` need not wait for PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{HOMES.get(name, name)}")
    return getattr(module, name) if name in HOMES else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

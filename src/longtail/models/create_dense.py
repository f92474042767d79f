"""Networks for pixels by name."""

import importlib
import inspect
from collections.abc import Callable

from longtail.models.dense import DenseBackbone


def dense_backbone_names() -> dict[str, Callable[[], DenseBackbone]]:
    """The package's own networks for pixels: what `longtail.models` exports to make one."""
    models = importlib.import_module("longtail.models")
    exported = {name: getattr(models, name) for name in models.__all__}
    return {
        name: make
        for name, make in exported.items()
        if inspect.isfunction(make)
        and inspect.isclass(made := make.__annotations__.get("return"))
        and issubclass(made, DenseBackbone)
        and not inspect.signature(make).parameters
    }


def create_dense_backbone(
    name: str, *, decoder: str = "atrous", pretrained: bool = False
) -> DenseBackbone:
    """Makes a network for pixels.

    Args:
        name: a name of `dense_backbone_names`.

    Raises:
        ValueError: when nobody knows the name.
    """
    own = dense_backbone_names()
    if name in own:
        return own[name]()
    raise ValueError(f"backbone must be one of {sorted(own)}, got {name!r}")

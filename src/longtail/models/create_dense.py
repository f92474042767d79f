"""Networks for pixels by name."""

import importlib
import inspect
from collections.abc import Callable

from longtail.models.create import make_imported
from longtail.models.dense import DenseBackbone
from longtail.models.dense_timm import TimmDense


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
    """Makes a network for pixels: one of the package's own, or a timm encoder with a decoder.

    Args:
        name: a name of `dense_backbone_names`, the import path of a function or class of your own
            that makes one (`package.module.Name`), or a timm model name.
        decoder: of a timm encoder: `atrous` or `pyramid`.
        pretrained: with timm's weights of the encoder.

    Raises:
        ValueError: when nobody knows the name, or there are no pretrained weights to be had.
    """
    own = dense_backbone_names()
    if name in own:
        if pretrained:
            raise ValueError(f"backbone {name!r} has no pretrained weights; --pretrained false")
        return own[name]()
    imported: DenseBackbone | None = make_imported(name, DenseBackbone, pretrained)
    return imported or TimmDense(name, decoder, pretrained)

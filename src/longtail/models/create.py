"""Backbones and heads by name."""

import importlib
import inspect
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from longtail.errors import InputError
from longtail.models.backbone import Backbone
from longtail.models.dense import DenseBackbone
from longtail.models.dense_timm import TimmDense
from longtail.models.heads import CosineHead, DefaultLinearHead, LinearHead
from longtail.models.timm_backbone import TimmBackbone
from longtail.names import imported

AnyBackbone = TypeVar("AnyBackbone", bound=Backbone)
HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": LinearHead,
    "linear_default": DefaultLinearHead,
    "cosine": CosineHead,
}


def backbone_names() -> dict[str, Callable[..., Backbone]]:
    """The package's own backbones: every function that `longtail.models` exports to make one."""
    return _makers(Backbone)  # type: ignore[type-abstract]


def dense_backbone_names() -> dict[str, Callable[..., DenseBackbone]]:
    """The package's own networks for pixels, as `backbone_names` has those for images."""
    return _makers(DenseBackbone)  # type: ignore[type-abstract]


def create_backbone(name: str, *, pretrained: bool = False) -> Backbone:
    """Makes a backbone: one of the package's own, or one of timm's.

    Args:
        name: a name of `backbone_names`, the import path of a function or class of your own that
            makes one (`package.module.Name`), or a timm model name.
        pretrained: with weights from elsewhere: of a package (`efficientnet_lite0`) or timm's hub.

    Raises:
        ValueError: when nobody knows the name, or there are no pretrained weights to be had.
    """
    made: Backbone | None = _make(name, Backbone, pretrained)  # type: ignore[type-abstract]
    return made or TimmBackbone(name, pretrained)


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
    made: DenseBackbone | None = _make(name, DenseBackbone, pretrained)  # type: ignore[type-abstract]
    return made or TimmDense(name, decoder, pretrained)


def _makers(kind: type[AnyBackbone]) -> dict[str, Callable[..., AnyBackbone]]:
    """Functions that `longtail.models` exports and that make a backbone of this kind."""
    models = importlib.import_module("longtail.models")
    exported = {name: getattr(models, name) for name in models.__all__}
    return {
        name: make
        for name, make in exported.items()
        if inspect.isfunction(make)
        and inspect.isclass(made := make.__annotations__.get("return"))
        and _is_of(kind, made)
        and not set(inspect.signature(make).parameters) - {"pretrained"}
    }


def _is_of(kind: type[Backbone], made: type) -> bool:
    """Whether a class is of this kind: a backbone for pixels is none for whole images."""
    dense = issubclass(made, DenseBackbone)
    return issubclass(made, kind) and dense == issubclass(kind, DenseBackbone)


def _make(name: str, kind: type[AnyBackbone], pretrained: bool) -> AnyBackbone | None:
    """Makes one of the package's own backbones or a user's; None where the name is neither's.

    Raises:
        ValueError: when an import path makes something else, or there are no pretrained weights.
    """
    make = _makers(kind).get(name) or imported(name, "backbone")
    if make is None:
        return None
    if not callable(make):
        raise InputError(f"backbone {name!r} must be a function or a class, got {make!r}")
    if pretrained and "pretrained" not in inspect.signature(make).parameters:
        raise InputError(f"backbone {name!r} has no pretrained weights; --pretrained false")
    made = make(pretrained=True) if pretrained else make()
    if not _is_of(kind, type(made)):
        raise InputError(
            f"backbone {name!r} must make a longtail.models.{kind.__name__}, got {type(made)}"
        )
    found: AnyBackbone = made
    return found


def create_head(name: str, num_features: int, num_classes: int) -> nn.Module:
    """Makes a classifier head.

    Args:
        name: `linear` (He's normal initialisation), `linear_default` (PyTorch's own), or `cosine`.
        num_features: width of the features, D.
        num_classes: number of classes, C.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in HEADS:
        raise InputError(f"head must be one of {sorted(HEADS)}, got {name!r}")
    return HEADS[name](num_features, num_classes)

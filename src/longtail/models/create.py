"""Backbones and heads by name."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from longtail.errors import InputError
from longtail.models.backbone import Backbone, Encoder
from longtail.models.heads import (
    CosineHead,
    DefaultLinearHead,
    DenseCosineHead,
    DenseHead,
    DenseLinearHead,
    LinearHead,
)
from longtail.models.timm_backbone import TimmBackbone, is_timm_model
from longtail.names import imported, is_import_path

AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)
HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": LinearHead,
    "linear_default": DefaultLinearHead,
    "cosine": CosineHead,
}
DENSE_HEADS: dict[str, type[DenseHead]] = {"linear": DenseLinearHead, "cosine": DenseCosineHead}


def backbone_names() -> dict[str, Callable[..., Backbone]]:
    """The package's own backbones: every function in `longtail.models` that makes one."""
    return exported_makers("longtail.models", Backbone)  # type: ignore[type-abstract]


def create_backbone(name: str, *, pretrained: bool = False) -> Backbone:
    """Makes a backbone: one of the package, of timm, or your own.

    Args:
        name: a name of `backbone_names`, the import path of a function or class of your own that
            makes one (`package.module.Name`), or a timm model name.
        pretrained: load pretrained weights, from a package (`efficientnet_lite0`) or from timm.

    Raises:
        InputError: when the name is unknown, or no pretrained weights are available.
    """
    known = backbone_names()
    made: Backbone | None = make_named(name, known, Backbone, pretrained)  # type: ignore[type-abstract]
    return made or TimmBackbone(name, pretrained)


def exported_makers(package: str, kind: type[AnyEncoder]) -> dict[str, Callable[..., AnyEncoder]]:
    """Functions exported by a package that make an encoder of this kind, by name.

    Args:
        package: import path of the package.
        kind: the encoder's base class.
    """
    module = importlib.import_module(package)
    exported = {name: getattr(module, name) for name in module.__all__}
    return {
        name: make
        for name, make in exported.items()
        if inspect.isfunction(make)
        and inspect.isclass(made := make.__annotations__.get("return"))
        and issubclass(made, kind)
        and not set(inspect.signature(make).parameters) - {"pretrained"}
    }


def is_own_backbone(name: str) -> bool:
    """Whether the name of a backbone is the import path of a user's own.

    A timm name with a dot is never mistaken for a module in the current folder.
    """
    return is_import_path(name) and not is_timm_model(name)


def takes_pretrained(make: Callable[..., Any]) -> bool:
    """Whether a function that makes a backbone can load pretrained weights."""
    return "pretrained" in inspect.signature(make).parameters


def make_named(
    name: str,
    known: Mapping[str, Callable[..., AnyEncoder]],
    kind: type[AnyEncoder],
    pretrained: bool,
) -> AnyEncoder | None:
    """Makes an encoder from its name or an import path; None if the name is neither.

    Names in files must be checked before, see `longtail.names.refuse_untrusted`.

    Args:
        name: a key of `known`, or an import path.
        known: functions that make an encoder, by name.
        kind: base class that the encoder must have.
        pretrained: load pretrained weights.

    Raises:
        InputError: when an import path makes something else, or there are no pretrained weights.
    """
    if not isinstance(name, str):
        raise InputError(f"backbone must be a name, got {name!r}")
    make = known.get(name)
    if make is None and is_own_backbone(name):
        make = imported(name, "backbone")
    if make is None:
        return None
    if not callable(make):
        raise InputError(f"backbone {name!r} must be a function or a class, got {make!r}")
    if pretrained and not takes_pretrained(make):
        raise InputError(f"backbone {name!r} has no pretrained weights; --pretrained false")
    made = make(pretrained=True) if pretrained else make()
    if not isinstance(made, kind):
        raise InputError(f"backbone {name!r} must make a {kind.__name__}, got {type(made)}")
    return made


def create_head(name: str, num_features: int, num_classes: int) -> nn.Module:
    """Makes a classifier head.

    Args:
        name: `linear` (He's normal initialisation), `linear_default` (PyTorch's own), or `cosine`.
        num_features: width of the features, D.
        num_classes: number of classes, C.

    Raises:
        InputError: when the name is unknown.
    """
    if name not in HEADS:
        raise InputError(f"head must be one of {sorted(HEADS)}, got {name!r}")
    return HEADS[name](num_features, num_classes)


def create_dense_head(name: str, num_features: int, num_classes: int) -> DenseHead:
    """Makes a classifier for every position of a feature map, `linear` or `cosine`.

    Raises:
        InputError: when the name is unknown.
    """
    if name not in DENSE_HEADS:
        raise InputError(f"head must be one of {sorted(DENSE_HEADS)}, got {name!r}")
    return DENSE_HEADS[name](num_features, num_classes)

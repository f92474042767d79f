"""Backbones and heads by name."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from longtail.models.backbone import Backbone
from longtail.models.dense import DenseBackbone
from longtail.models.heads import CosineHead, LinearHead
from longtail.models.timm_backbone import TimmBackbone

HEADS: dict[str, Callable[[int, int], nn.Module]] = {"linear": LinearHead, "cosine": CosineHead}


def backbone_names() -> dict[str, Callable[..., Backbone]]:
    """The package's own backbones: every function that `longtail.models` exports to make one."""
    models = importlib.import_module("longtail.models")
    exported = {name: getattr(models, name) for name in models.__all__}
    return {
        name: make
        for name, make in exported.items()
        if inspect.isfunction(make)
        and inspect.isclass(made := make.__annotations__.get("return"))
        and issubclass(made, Backbone)
        and not issubclass(made, DenseBackbone)
        and not set(inspect.signature(make).parameters) - {"pretrained"}
    }


def create_backbone(name: str, *, pretrained: bool = False) -> Backbone:
    """Makes a backbone: one of the package's own, or one of timm's.

    Args:
        name: a name of `backbone_names`, the import path of a function or class of your own that
            makes one (`package.module.Name`), or a timm model name.
        pretrained: with weights from elsewhere: of a package (`efficientnet_lite0`) or timm's hub.

    Raises:
        ValueError: when nobody knows the name, or there are no pretrained weights to be had.
    """
    own = backbone_names()
    if name in own:
        if not pretrained:
            return own[name]()
        if "pretrained" not in inspect.signature(own[name]).parameters:
            raise ValueError(f"backbone {name!r} has no pretrained weights; --pretrained false")
        return own[name](pretrained=True)
    imported: Backbone | None = make_imported(name, Backbone, pretrained)
    return imported or TimmBackbone(name, pretrained)


def make_imported(name: str, kind: type, pretrained: bool) -> Any:
    """What a function or class behind an import path makes; None where there is none.

    Args:
        name: `package.module.Name`; timm, too, names a set of weights behind a dot.
        kind: what it must make.
        pretrained: handed to it where it takes that.

    Raises:
        ValueError: when it makes something else, or has no pretrained weights.
    """
    module, _, attribute = name.rpartition(".")
    try:
        make = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError):
        make = None
    if make is None:
        return None
    takes = "pretrained" in inspect.signature(make).parameters
    if pretrained and not takes:
        raise ValueError(f"backbone {name!r} has no pretrained weights; --pretrained false")
    made = make(pretrained=True) if pretrained else make()
    if not isinstance(made, kind):
        raise ValueError(
            f"backbone {name!r} must make a longtail.models.{kind.__name__}, got {type(made)}"
        )
    return made


def create_head(name: str, num_features: int, num_classes: int) -> nn.Module:
    """Makes a classifier head, `linear` or `cosine`.

    Raises:
        ValueError: when the name is another.
    """
    if name not in HEADS:
        raise ValueError(f"head must be one of {sorted(HEADS)}, got {name!r}")
    return HEADS[name](num_features, num_classes)

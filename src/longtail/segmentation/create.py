"""Dense backbones by name."""

from collections.abc import Callable

from longtail.models import exported_makers, make_named
from longtail.segmentation.model import DenseBackbone
from longtail.segmentation.timm_model import TimmDense


def dense_backbone_names() -> dict[str, Callable[..., DenseBackbone]]:
    """The package's own dense backbones; see `longtail.models.backbone_names`."""
    return exported_makers("longtail.segmentation", DenseBackbone)  # type: ignore[type-abstract]


def create_dense_backbone(
    name: str, *, decoder: str = "atrous", pretrained: bool = False
) -> DenseBackbone:
    """Makes a dense backbone: one of the package, your own, or a timm encoder with a decoder.

    Args:
        name: a name of `dense_backbone_names`, the import path of a function or class of your own
            that makes one (`package.module.Name`), or a timm model name.
        decoder: decoder on a timm encoder: `atrous` or `pyramid`.
        pretrained: load timm's pretrained weights of the encoder.

    Raises:
        InputError: when the name is unknown, or no pretrained weights are available.
    """
    known = dense_backbone_names()
    made: DenseBackbone | None = make_named(name, known, DenseBackbone, pretrained)  # type: ignore[type-abstract]
    return made or TimmDense(name, decoder, pretrained)

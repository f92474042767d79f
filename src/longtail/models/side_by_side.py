"""Several classifiers as one, such as the teachers of a student."""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.models.backbone import Backbone
from longtail.models.heads import CosineHead, ImageClassifier
from longtail.precision import full_precision


class SideBySide(Backbone):
    """Backbones whose features, each of unit norm, are concatenated.

    Args:
        parts: the backbones; each normalises the images itself.
    """

    def __init__(self, parts: Sequence[Backbone]) -> None:
        levels = (0.0,) * 3, (1 / 255,) * 3  # mean and deviation that leave the levels as they are
        super().__init__(sum(part.num_features for part in parts), *levels)
        self.parts = nn.ModuleList(parts)

    def for_inference(self) -> Self:
        """A frozen copy, as fast as the architectures of its parts allow."""
        twin = super().for_inference()
        twin.parts = nn.ModuleList(part.for_inference() for part in self._backbones())
        return twin

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D) of images (B, 3, H, W), levels 0 to 255; D is the sum of the widths."""
        features = [full_precision(part(images)) for part in self._backbones()]
        return torch.cat([F.normalize(part, dim=1) for part in features], dim=1)

    def _backbones(self) -> list[Backbone]:
        return [part for part in self.parts if isinstance(part, Backbone)]


def ensemble(models: Sequence[ImageClassifier]) -> ImageClassifier:
    """One classifier whose cosines are the mean of those of several.

    Args:
        models: classifiers with cosine heads over the same classes; they become part of the result.

    Raises:
        InputError: when a head is not a cosine head, or the heads differ in classes or scale.

    Examples:
        >>> from longtail.models import smallnet
        >>> models = [ImageClassifier(smallnet(), CosineHead(64, 10)).eval() for _ in range(2)]
        >>> images = torch.randint(256, (3, 3, 8, 8))
        >>> mean = (models[0](images) + models[1](images)) / 2
        >>> torch.allclose(ensemble(models).eval()(images), mean, atol=1e-4)
        True
    """
    heads = [model.head for model in models if isinstance(model.head, CosineHead)]
    kinds = [_described(model.head) for model in models]
    if len(heads) < len(models) or len({*kinds}) != 1:
        raise InputError(
            "models of an ensemble must have cosine heads (method.head cosine) with the same "
            f"classes and scale, got {', '.join(kinds) or 'none'}"
        )
    backbone = SideBySide([model.backbone for model in models])
    head = CosineHead(backbone.num_features, len(heads[0].weight), heads[0].scale)
    with torch.no_grad():
        head.weight.copy_(torch.cat([F.normalize(each.weight, dim=1) for each in heads], dim=1))
    return ImageClassifier(backbone, head)


def _described(head: nn.Module) -> str:
    if not isinstance(head, CosineHead):
        return type(head).__name__
    return f"CosineHead of {len(head.weight)} classes with scale {head.scale:g}"

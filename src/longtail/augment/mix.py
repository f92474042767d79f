"""Mixup and CutMix: two images mixed into one, with both targets, for any method."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from longtail.augment.batched import Drawn
from longtail.errors import InputError
from longtail.ranges import check_range


class MixedBatch(NamedTuple):
    """A mixed batch.

    With a loss that gives one value for each image::

        mixed = Mixup(alpha=0.2)(images, target, generator)
        logits = model(mixed.images)
        first, second = loss(logits, mixed.target), loss(logits, mixed.other)
        (mixed.weight * first + (1 - mixed.weight) * second).mean()

    A loss that gives the mean of the batch needs one weight for all images: draw it with
    `shared=True`, and take `mixed.weight[0]` in the last line.

    Attributes:
        images: (B, ...), of the type of the input.
        target: (B,), target of the first image.
        other: (B,), target of the second image.
        weight: (B,) float32, share of the first image, in [0, 1].
    """

    images: Tensor
    target: Tensor
    other: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Mixup:
    """Weighted mean of each image and a random other image of the batch.

    Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv 1710.09412.
    Differs from the paper's code: one weight per image, unless `shared`.

    Args:
        alpha: the weight is drawn from Beta(alpha, alpha).
        shared: one weight for the whole batch.

    Raises: ValueError: when `alpha` is not above 0.
    Examples:
        >>> images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        >>> mixed = Mixup(0.2)(images, torch.arange(4), torch.Generator().manual_seed(0))
        >>> sorted(mixed.other.tolist())
        [0, 1, 2, 3]
    """

    alpha: float = 1.0
    shared: bool = False

    def __post_init__(self) -> None:
        check_range("alpha of Mixup", self.alpha, above=0)

    def __call__(self, images: Tensor, target: Tensor, generator: torch.Generator) -> MixedBatch:
        """Mixes images (B, ...), bytes or floats, and their targets (B,)."""
        _check_target(images, target)
        return self.draw(images.shape, generator)(images, target)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[MixedBatch]:
        """Draws partners and weights, for images of a shape; `apply` takes their targets, too."""
        partner = torch.randperm(shape[0], generator=generator)
        weight = _beta(self.alpha, self.shared, shape[0], generator)

        def apply(images: Tensor, target: Tensor, drawn: Iterator[Tensor]) -> MixedBatch:
            partner, weight = next(drawn), next(drawn)
            share = weight.view(-1, *[1] * (images.ndim - 1))
            mixed = torch.lerp(images[partner].float(), images.float(), share)
            if not images.is_floating_point():
                mixed = mixed.round_()
            return MixedBatch(mixed.to(images.dtype), target, target[partner], weight)

        return Drawn((partner, weight), apply)


@dataclass(frozen=True)
class CutMix:
    """Replaces a box in each image with that of a random other image of the batch.

    Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features, ICCV 2019, arXiv 1905.04899. The box is clipped at the border, and the weight is the
    share of pixels that the first image keeps. Differs from the paper's code: one box per image,
    unless `shared`.

    Args:
        alpha: the share that the first image keeps is drawn from Beta(alpha, alpha).
        shared: one box for the whole batch.

    Raises: ValueError: when `alpha` is not above 0.
    """

    alpha: float = 1.0
    shared: bool = False

    def __post_init__(self) -> None:
        check_range("alpha of CutMix", self.alpha, above=0)

    def __call__(self, images: Tensor, target: Tensor, generator: torch.Generator) -> MixedBatch:
        """Mixes images (B, ..., H, W), bytes or floats, and their targets (B,)."""
        _check_target(images, target)
        return self.draw(images.shape, generator)(images, target)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[MixedBatch]:
        """Draws partners and boxes, for images of a shape; `apply` takes their targets, too."""
        partner = torch.randperm(shape[0], generator=generator)
        side = (1 - _beta(self.alpha, self.shared, shape[0], generator)).sqrt()
        rows, columns = (self._inside(side, size, generator) for size in shape[-2:])

        def apply(images: Tensor, target: Tensor, drawn: Iterator[Tensor]) -> MixedBatch:
            partner, rows, columns = islice(drawn, 3)
            box = rows.unsqueeze(2) & columns.unsqueeze(1)  # (B, H, W)
            weight = 1 - box.float().mean(dim=(1, 2))
            cut = box.view(len(images), *[1] * (images.ndim - 3), *box.shape[1:]).to(images.dtype)
            # Products, not `torch.where`, which is slow on bytes on the CPU.
            mixed = images * (1 - cut) + images[partner] * cut
            return MixedBatch(mixed, target, target[partner], weight)

        return Drawn((partner, rows, columns), apply)

    def _inside(self, side: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """Which rows (or columns) lie in the box, (B, size)."""
        shape = (1,) if self.shared else side.shape
        centre = torch.randint(size, shape, generator=generator)
        half = (side * size).long() // 2
        offset = torch.arange(size) - centre.unsqueeze(1)
        return (offset >= -half.unsqueeze(1)) & (offset < half.unsqueeze(1))


def _check_target(images: Tensor, target: Tensor) -> None:
    if len(images) != len(target):
        raise InputError(
            f"target must hold one class for each image, "
            f"got {tuple(target.shape)} for images {tuple(images.shape)}"
        )


def _beta(alpha: float, shared: bool, batch: int, generator: torch.Generator) -> Tensor:
    """Draws from Beta(alpha, alpha), (B,) float32."""
    concentration = torch.full((1 if shared else batch, 2), alpha)
    # As in torch.distributions.Beta, which takes no generator.
    drawn = torch._sample_dirichlet(concentration, generator)[:, 0]
    return drawn.expand(batch) if shared else drawn

"""Random views of images with their masks: scale, crop and flip of both, colours of images only.

An image-mask pair is four uint8 planes: red, green, blue and class (255 where ignored).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.augment.batched import Drawn, to_bytes
from longtail.augment.transforms import ColorJitter
from longtail.errors import InputError
from longtail.names import nearest
from longtail.segmentation.masks import IGNORED

PAIRED_VIEWS = {
    "none": "no augmentation",
    "weak": "random crop at scale 0.75 to 1.5, flip",
    "strong": "random crop at scale 0.5 to 2, flip, then jitter of brightness, contrast, colour",
}


def paired_crop(
    pairs: Tensor,
    top: Tensor,
    left: Tensor,
    scale: Tensor,
    flipped: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """Scales, crops and mirrors image-mask pairs: images bilinearly, masks by nearest pixel.

    At scale s a window of h x w pixels shows h / s x w / s pixels of the image. Pixels outside of
    the image are black and ignored. An image that shrinks is not antialiased.

    Args:
        pairs: (B, 4, H, W) uint8.
        top: (B,), upper edge of the window, in pixels of the image; may lie outside.
        left: (B,), left edge.
        scale: (B,), above 0; 2 makes everything twice as large.
        flipped: (B,) boolean, whether the window is flipped horizontally.
        size: height and width of the window.

    Returns: (B, 4, *size) uint8.
    Raises: InputError: when `pairs` has another shape or type.
    Examples:
        >>> pairs = torch.arange(8, dtype=torch.uint8).view(1, 4, 1, 2)
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> paired_crop(pairs, zero, one, one, zero.bool(), (1, 2))[0].tolist()
        [[[1, 0]], [[3, 0]], [[5, 0]], [[7, 255]]]
    """
    check_pairs(pairs)
    row = _edges(top, scale, size[0])
    column = _edges(left, scale, size[1])
    column = torch.where(flipped[:, None], column.flip(1), column)
    return torch.cat(
        [_bilinear(pairs[:, :3], row, column), _nearest(pairs[:, 3], row, column)[:, None]], 1
    )


def check_pairs(pairs: Tensor) -> None:
    """Rejects tensors that are not a batch of image-mask pairs."""
    if pairs.dtype != torch.uint8 or pairs.ndim != 4 or pairs.shape[1] != 4:
        raise InputError(
            f"pairs must be uint8 (batch, 4, height, width): red, green, blue, class, "
            f"got {pairs.dtype} {tuple(pairs.shape)}"
        )


def _edges(start: Tensor, scale: Tensor, size: int) -> Tensor:
    """Centre of each new pixel, (B, size), in pixels from the image's upper (left) edge."""
    middle = torch.arange(size, device=start.device) + 0.5
    return start[:, None] + middle / scale[:, None]


def _bilinear(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    height, width = images.shape[2:]
    shape = (len(images), row.shape[1], column.shape[1])
    across = (2 / width * column - 1)[:, None, :].expand(shape)
    down = (2 / height * row - 1)[:, :, None].expand(shape)
    grid = torch.stack([across, down], dim=3)  # of [-1, 1] from edge to edge
    # The border is repeated, so that only pixels outside are black.
    sampled = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return to_bytes(sampled.round_().mul_(_inside(row, column, height, width)[:, None]))


def _nearest(masks: Tensor, row: Tensor, column: Tensor) -> Tensor:
    height, width = masks.shape[1:]
    index = row.long().clamp(0, height - 1)[:, :, None] * width
    index = index + column.long().clamp(0, width - 1)[:, None, :]
    taken = masks.flatten(1).gather(1, index.flatten(1)).view(index.shape)
    return taken.masked_fill_(~_inside(row, column, height, width), IGNORED)


def _inside(row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Whether each new pixel (B, h, w) lies inside of the image."""
    rows, columns = (row >= 0) & (row < height), (column >= 0) & (column < width)
    return rows[:, :, None] & columns[:, None, :]


@dataclass(frozen=True)
class PairedView:
    """A random view of image-mask pairs.

    Args:
        size: height and width of the crop; default: those of the images.
        scale: smallest and largest scale factor; its logarithm is drawn uniformly.
        flip: probability of a horizontal flip.
        jitter: colour jitter of the image, or None.

    Raises: InputError: when `scale` is not 0 < smallest <= largest.

    Examples:
        >>> view = PairedView((4, 4), scale=(0.5, 2.0))
        >>> pairs = torch.zeros(2, 4, 6, 8, dtype=torch.uint8)
        >>> view(pairs, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 4, 4, 4])
    """

    size: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.5
    jitter: ColorJitter | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(
                f"scale of PairedView must be 0 < smallest <= largest, got {self.scale}"
            )

    def __call__(self, pairs: Tensor, generator: torch.Generator) -> Tensor:
        """Draws one view of every pair.

        Args:
            pairs: (B, 4, H, W) uint8.
            generator: generator on the CPU; the same state gives the same view, bit for bit.

        Returns: (B, 4, *size) uint8.
        Raises: InputError: when `pairs` has another shape or type.
        """
        check_pairs(pairs)
        return self.draw(pairs.shape, generator)(pairs)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws one view of every pair to come, of which only the shape (B, 4, H, W) is known."""
        batch, _, height, width = shape
        size = self.size or (height, width)
        draws = torch.rand(4, batch, generator=generator)
        seen = torch.Size((batch, 3, *size))
        jitter = None if self.jitter is None else self.jitter.draw(seen, generator)

        def apply(pairs: Tensor, drawn: Iterator[Tensor]) -> Tensor:
            draws = next(drawn)
            low, high = map(math.log, self.scale)
            scale = (low + draws[0] * (high - low)).exp()
            # A window that is larger than the image contains it.
            top = draws[1] * (height - size[0] / scale)
            left = draws[2] * (width - size[1] / scale)
            seen = paired_crop(pairs, top, left, scale, draws[3] < self.flip, size)
            if jitter is None:
                return seen
            return torch.cat([jitter.apply(seen[:, :3].contiguous(), drawn), seen[:, 3:]], 1)

        return Drawn((draws, *(jitter.parameters if jitter else ())), apply)

    def without_crop(self) -> "PairedView":
        """The rest of the view, for pairs that were scaled and cropped when they were read."""
        return PairedView(None, (1.0, 1.0), self.flip, self.jitter)


def named_paired_view(name: str, size: tuple[int, int] | None) -> PairedView:
    """A view by name.

    Args:
        name: one of PAIRED_VIEWS.
        size: height and width of the crop; default: those of the images.

    Raises: InputError: when the name is unknown.
    """
    views = {
        "none": PairedView(size, flip=0.0),
        "weak": PairedView(size, (0.75, 1.5)),
        "strong": PairedView(size, (0.5, 2.0), jitter=ColorJitter(0.3, 0.3, 0.3, 0.0)),
    }
    if name not in views:
        hint = nearest(name, views)
        raise InputError(f"views of segmentation must be one of {list(views)}, got {name!r}{hint}")
    return views[name]

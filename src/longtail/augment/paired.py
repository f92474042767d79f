"""Image and mask together: scale, crop and flip in one sampling, colour for the image alone.

A pair is four planes of bytes: red, green, blue and class (255 where ignored).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from longtail.augment.batched import beside, to_bytes
from longtail.augment.transforms import ColorJitter
from longtail.errors import InputError
from longtail.masks import IGNORED
from longtail.names import nearest

PAIRED_VIEWS = {
    "none": "pairs as they are",
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
    """Scales pairs, cuts a window out of each, and mirrors it: images bilinear, classes nearest.

    At scale s a window of h x w pixels shows h / s x w / s pixels of the pair. What lies outside
    of the pair is black and ignored. Nothing smooths an image that shrinks.

    Args:
        pairs: (B, 4, H, W) uint8.
        top: (B,), upper edge of the window, in pixels of the pair; may lie outside.
        left: (B,), left edge.
        scale: (B,), above 0; 2 makes everything twice as large.
        flipped: (B,) boolean, whether the window is mirrored left and right.
        size: height and width of the window.

    Returns: (B, 4, *size) uint8.
    Raises: ValueError: when `pairs` is no such tensor.
    Example:
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
    """Refuses what is no batch of pairs."""
    if pairs.dtype != torch.uint8 or pairs.ndim != 4 or pairs.shape[1] != 4:
        raise InputError(
            f"pairs must be uint8 (batch, 4, height, width): red, green, blue, class, "
            f"got {pairs.dtype} {tuple(pairs.shape)}"
        )


def _edges(start: Tensor, scale: Tensor, size: int) -> Tensor:
    """Where the middle of each new pixel lies, (B, size), pixels from the pair's upper edge."""
    middle = torch.arange(size, device=start.device) + 0.5
    return start[:, None] + middle / scale[:, None]


def _bilinear(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    height, width = images.shape[2:]
    shape = (len(images), row.shape[1], column.shape[1])
    across = (2 / width * column - 1)[:, None, :].expand(shape)
    down = (2 / height * row - 1)[:, :, None].expand(shape)
    grid = torch.stack([across, down], dim=3)  # of [-1, 1] from edge to edge
    # At the border the edge goes on, so that only what lies outside is black.
    sampled = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return to_bytes(sampled.round_().mul_(_inside(row, column, height, width)[:, None]))


def _nearest(masks: Tensor, row: Tensor, column: Tensor) -> Tensor:
    height, width = masks.shape[1:]
    places = row.long().clamp(0, height - 1)[:, :, None] * width
    places = places + column.long().clamp(0, width - 1)[:, None, :]
    taken = masks.flatten(1).gather(1, places.flatten(1)).view(places.shape)
    return taken.masked_fill_(~_inside(row, column, height, width), IGNORED)


def _inside(row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Which new pixels (B, h, w) show a part of the pair."""
    rows, columns = (row >= 0) & (row < height), (column >= 0) & (column < width)
    return rows[:, :, None] & columns[:, None, :]


@dataclass(frozen=True)
class PairedView:
    """One random way to see pairs.

    Args:
        size: height and width of the result; those of the pairs when not given.
        scale: least and largest factor, drawn evenly in its logarithm.
        flip: probability of a mirrored view.
        jitter: of the colours, or none.

    Raises: ValueError: when `scale` is not 0 < least <= largest.

    Example:
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
            raise InputError(f"scale of PairedView must be 0 < least <= largest, got {self.scale}")

    def __call__(self, pairs: Tensor, generator: torch.Generator) -> Tensor:
        """Draws the view of every pair.

        Args:
            pairs: (B, 4, H, W) uint8.
            generator: on the CPU; the same state gives the same view, bit for bit.

        Returns: (B, 4, *size) uint8.
        Raises: ValueError: when `pairs` is no such tensor.
        """
        check_pairs(pairs)
        batch, _, height, width = pairs.shape
        size = self.size or (height, width)
        draws = beside(pairs, torch.rand(4, batch, generator=generator))
        low, high = map(math.log, self.scale)
        scale = (low + draws[0] * (high - low)).exp()
        # A window larger than the pair begins at its edge, or ends there, or lies in between.
        top = draws[1] * (height - size[0] / scale)
        left = draws[2] * (width - size[1] / scale)
        seen = paired_crop(pairs, top, left, scale, draws[3] < self.flip, size)
        return seen if self.jitter is None else self._coloured(seen, generator)

    def _coloured(self, pairs: Tensor, generator: torch.Generator) -> Tensor:
        assert self.jitter is not None
        return torch.cat([self.jitter(pairs[:, :3].contiguous(), generator), pairs[:, 3:]], 1)

    def without_crop(self) -> "PairedView":
        """What is left to do for pairs that were scaled and cropped where they were read."""
        return PairedView(None, (1.0, 1.0), self.flip, self.jitter)


def named_paired_view(name: str, size: tuple[int, int] | None) -> PairedView:
    """The view of a name.

    Args:
        name: one of PAIRED_VIEWS.
        size: height and width of the crop; those of the pairs when not given.

    Raises: ValueError: when there is no such view.
    """
    views = {
        "none": PairedView(size, flip=0.0),
        "weak": PairedView(size, (0.75, 1.5)),
        "strong": PairedView(size, (0.5, 2.0), jitter=ColorJitter(0.3, 0.3, 0.3, 0.0)),
    }
    if name not in views:
        hint = nearest(name, views)
        raise InputError(f"views of pairs must be one of {list(views)}, got {name!r}{hint}")
    return views[name]

"""A colour for every class, and masks as pictures of them."""

import colorsys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from longtail.files import whole_file

GOLDEN = 0.618033988749895  # steps of this share of the circle never come back near an old hue
TONES = ((0.85, 0.95), (0.55, 0.75), (0.9, 0.6))  # saturation and value, in turn


def class_colours(num_classes: int) -> NDArray[np.uint8]:
    """Colours (C, 3) that are far apart for neighbouring classes; the same in every run.

    Example:
        >>> class_colours(2).tolist()
        [[242, 36, 36], [86, 116, 191]]
    """
    levels = [
        colorsys.hsv_to_rgb(c * GOLDEN % 1, *TONES[c % len(TONES)]) for c in range(num_classes)
    ]
    colours: NDArray[np.uint8] = (np.array(levels) * 255).astype(np.uint8)
    return colours


def mask_picture(mask: Tensor, num_classes: int) -> Image.Image:
    """A mask (H, W) as an index PNG's picture: values are classes, shown in their colours.

    255, where a pixel is ignored, is black.
    """
    picture = Image.fromarray(mask.cpu().numpy().astype(np.uint8), mode="P")
    table = np.zeros((256, 3), dtype=np.uint8)
    table[:num_classes] = class_colours(num_classes)
    picture.putpalette(table.tobytes())
    return picture


def save_png(picture: Image.Image, path: Path) -> None:
    """Writes a PNG file whole or not at all."""
    with whole_file(path) as part, part.open("wb") as handle:
        picture.save(handle, format="PNG")

"""A picture that shows what was found where: the image, its classes laid over it, and a legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from longtail.data.segmentation import class_colours

OPACITY = 0.5
FONT_SIZE = 13
ROW, SWATCH, GAP = 20, 12, 8


def overlay(image: Tensor, mask: Tensor, class_names: Sequence[str]) -> Image.Image:
    """An image with the classes of its pixels in colour, and under it the legend.

    Args:
        image: (3, H, W) uint8.
        mask: (H, W), class of each pixel.
        class_names: of all classes; the legend has those that are in the mask, largest first.
    """
    pixels = image.permute(1, 2, 0).cpu().numpy()
    classes = mask.cpu().numpy()
    colours = class_colours(len(class_names))
    mixed = pixels * (1 - OPACITY) + colours[classes] * OPACITY
    counts = np.bincount(classes.ravel(), minlength=len(class_names))
    shown = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    texts = [f"{class_names[c]} {100 * counts[c] / classes.size:.1f} %" for c in shown]
    legend = _legend(texts, [tuple(colours[c].tolist()) for c in shown], image.shape[2])
    page = Image.new("RGB", (image.shape[2], image.shape[1] + legend.height), "white")
    page.paste(Image.fromarray(mixed.astype(np.uint8)))
    page.paste(legend, (0, image.shape[1]))
    return page


def _legend(texts: Sequence[str], colours: Sequence[tuple[int, ...]], width: int) -> Image.Image:
    """Swatches with their texts, in as many rows as the width makes them."""
    font = ImageFont.load_default(FONT_SIZE)
    places = []
    x, y = GAP, GAP // 2
    for text in texts:
        needed = SWATCH + GAP // 2 + int(font.getlength(text)) + GAP
        if x + needed > width and x > GAP:
            x, y = GAP, y + ROW
        places.append((x, y))
        x += needed
    picture = Image.new("RGB", (width, y + ROW), "white")
    draw = ImageDraw.Draw(picture)
    for (left, top), text, colour in zip(places, texts, colours, strict=True):
        draw.rectangle((left, top + 3, left + SWATCH, top + 3 + SWATCH), fill=colour)
        draw.text((left + SWATCH + GAP // 2, top), text, fill="black", font=font)
    return picture

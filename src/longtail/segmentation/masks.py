"""Masks: meaning of values and colours, and images of masks with one colour per class."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from longtail.errors import InputError
from longtail.files import read_text, whole_file

IGNORED = 255  # class of a pixel that is ignored
MOST_CLASSES = 255
NO_CLASS = -1
IGNORED_NAMES = {"ignore", "ignored", "void", "unlabelled", "unlabeled"}

GOLDEN = 0.618033988749895  # steps of this share of the colour circle avoid earlier hues
TONES = ((0.85, 0.95), (0.55, 0.75), (0.9, 0.6))  # saturation and value, in turn

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class IndexCoding:
    """Masks whose pixel values encode classes.

    Args:
        values: value of each class.
        ignored: values of ignored pixels; 255 is also ignored unless it is a class.
    """

    values: tuple[int, ...]
    ignored: tuple[int, ...] = ()

    def decode(self, picture: Image.Image) -> Mask:
        """Classes of a mask (H, W) uint8, 255 where ignored.

        Raises:
            InputError: names the values that are not a class.
        """
        values = mask_values(picture)
        classes = self.table(is_lossy(picture))[values]
        wrong = np.unique(values[classes == NO_CLASS]).tolist()
        if wrong:
            raise InputError(not_a_class(wrong))
        decoded: Mask = classes.astype(np.uint8)
        return decoded

    def table(self, lossy: bool = False) -> NDArray[np.int16]:
        """Class of each of the 256 values: 255 if ignored, -1 if it is not a class.

        Args:
            lossy: for JPEG, whose values are slightly changed: the nearer one of two classes.

        Raises:
            InputError: for JPEG masks of more than two classes, since other classes lie between
                them.
        """
        if lossy:
            if len(self.values) != 2:
                raise InputError("JPEG changes the values at edges; save the masks as PNG")
            distance = np.abs(np.subtract.outer(np.arange(256), self.values))
            nearest: NDArray[np.int16] = distance.argmin(1).astype(np.int16)
            return nearest
        table = np.full(256, NO_CLASS, dtype=np.int16)
        table[[IGNORED, *self.ignored]] = IGNORED
        table[list(self.values)] = np.arange(len(self.values))
        return table


def index_coding(num_classes: int, first: int = 0, ignored: tuple[int, ...] = ()) -> IndexCoding:
    """Consecutive values, starting with that of class 0."""
    return IndexCoding(tuple(range(first, first + num_classes)), ignored)


def mask_values(picture: Image.Image) -> NDArray[np.int64]:
    """Values of a mask (H, W), 0 to 255; a colour image must be grey and opaque.

    Raises:
        InputError: when it has colours or other values.
    """
    values = np.asarray(picture)
    if values.ndim == 3:
        colours, grey = picture.getbands(), values[..., 0]
        plain = all(np.array_equal(values[..., band], grey) for band in range(len(colours))[1:3])
        opaque = colours[-1] != "A" or (values[..., -1] == 255).all()
        if colours[0] not in "RL" or not opaque or (colours[0] == "R" and not plain):
            raise InputError(
                f"the mask is a {picture.mode} image, not an index PNG: set data.palette"
            )
        values = grey
    whole = values.astype(np.int64)
    if whole.min() < 0 or whole.max() > 255 or not np.array_equal(whole, values):
        raise InputError(not_a_class([values.max()]))
    return whole


def is_lossy(picture: Image.Image) -> bool:
    """Whether the values of an image file may differ from those that were saved."""
    return picture.format in ("JPEG", "MPO")


def not_a_class(values: Sequence[int]) -> str:
    """Reason for rejecting a mask with values that are not a class."""
    return f"value {', '.join(map(str, values[:5]))} is not a class"


@dataclass(frozen=True)
class ColourCoding:
    """Masks that are colour images.

    Args:
        colours: colours as red << 16 | green << 8 | blue, ascending.
        classes: class of each colour, 255 for ignored.
    """

    colours: tuple[int, ...]
    classes: tuple[int, ...]

    def decode(self, picture: Image.Image) -> Mask:
        """Classes of a mask (H, W) uint8, 255 where ignored.

        Raises:
            InputError: names the colours that are not in the palette.
        """
        red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(np.int64), 2, 0)
        packed = red << 16 | green << 8 | blue
        known = np.array(self.colours)
        index = np.searchsorted(known, packed).clip(max=len(known) - 1)
        wrong = np.unique(packed[known[index] != packed]).tolist()
        if wrong:
            names = [f"({c >> 16}, {c >> 8 & 255}, {c & 255})" for c in wrong[:5]]
            raise InputError(f"colour {', '.join(names)} is not in the palette")
        classes: Mask = np.array(self.classes, dtype=np.uint8)[index]
        return classes


Coding = IndexCoding | ColourCoding


def read_palette(path: str | Path) -> tuple[ColourCoding, tuple[str, ...]]:
    """Reads a palette: lines `red green blue name`, separated by blanks, tabs or commas.

    A class may have several colours. Empty lines and lines that start with # are skipped.

    Returns: the coding, and the name of each class in the order of the file.
    Raises:
        InputError: when a line is malformed, or two names share a colour; the message names the
            lines.
    """
    lines = read_text(path).splitlines()
    names: list[str] = []
    found: dict[int, tuple[str, int]] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            colour, name = _parse(line)
        except ValueError:
            problems.append(f"line {number} must be `red green blue name`, got {line.strip()!r}")
            continue
        if colour in found:
            other, where = found[colour]
            problems.append(f"lines {where} ({other}) and {number} ({name}) have the same colour")
            continue
        found[colour] = (name, number)
        if name not in names and name.lower() not in IGNORED_NAMES:
            names.append(name)
    if not names and not problems:
        problems.append("it has no class")
    if problems:
        raise InputError(f"palette {path} cannot be used: {'; '.join(problems)}")
    classes = {c: IGNORED if n not in names else names.index(n) for c, (n, _) in found.items()}
    return ColourCoding(tuple(sorted(found)), tuple(classes[c] for c in sorted(found))), tuple(
        names
    )


def _parse(line: str) -> tuple[int, str]:
    """Packed colour and name of a line."""
    red, green, blue, name = line.replace(",", " ").split(None, 3)
    levels = [int(red), int(green), int(blue)]
    if not all(0 <= level <= 255 for level in levels):
        raise ValueError
    return levels[0] << 16 | levels[1] << 8 | levels[2], name.strip()


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Reads class names, one per line; empty lines at the end are skipped.

    Raises:
        InputError: when a line is empty, a name is listed twice, or there are none or too many.
    """
    names = [line.strip() for line in read_text(path).rstrip().splitlines()]
    check_names(path, names)
    return tuple(names)


def check_names(path: str | Path, names: Sequence[str]) -> None:
    """Rejects names that are empty or not unique."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if "" in names or twice or not 1 <= len(names) <= MOST_CLASSES:
        got = f"{twice} twice" if twice else f"{len(names)} lines, {names.count('')} of them empty"
        raise InputError(
            f"{path} must name 1 to {MOST_CLASSES} classes, each once, one per line, got {got}"
        )


def class_colours(num_classes: int) -> NDArray[np.uint8]:
    """Colours (C, 3), far apart for neighbouring classes; always the same.

    Examples:
        >>> class_colours(2).tolist()
        [[242, 36, 36], [86, 116, 191]]
    """
    levels = [
        colorsys.hsv_to_rgb(c * GOLDEN % 1, *TONES[c % len(TONES)]) for c in range(num_classes)
    ]
    colours: NDArray[np.uint8] = (np.array(levels) * 255).astype(np.uint8)
    return colours


def mask_picture(mask: Tensor, num_classes: int) -> Image.Image:
    """A mask (H, W) as an image with a palette: values are classes, shown in their colours.

    Ignored pixels (255) are black.
    """
    picture = Image.fromarray(mask.cpu().numpy().astype(np.uint8), mode="P")
    table = np.zeros((256, 3), dtype=np.uint8)
    table[:num_classes] = class_colours(num_classes)
    picture.putpalette(table.tobytes())
    return picture


def save_png(picture: Image.Image, path: Path) -> None:
    """Writes a PNG file atomically."""
    with whole_file(path) as part, part.open("wb") as handle:
        picture.save(handle, format="PNG")

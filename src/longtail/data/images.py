"""Image files of any size and mode, as 8-bit RGB."""

import io
import math
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from longtail.data.formats import suffix_of, why_refused
from longtail.data.paths import is_url, part_of
from longtail.data.problems import shown
from longtail.data.reading import prefetch, read_bytes, refused, size_of, with_new_copy
from longtail.data.remote import UnreachableError
from longtail.errors import InputError

# Torchvision's default, used by the published recipes; Pillow antialiases when it shrinks.
RESAMPLE = Image.Resampling.BILINEAR
SMALL = 64  # largest side in pixels of images that are held in memory
LARGE = 224  # default side of larger images
CHUNK = 32  # files that a thread reads at a time
NAMED = 1000  # unreadable files that a message lists

# Pillow warns about photographs above 89 million pixels, and refuses those above 179 million.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

Failure = tuple[str, str]  # path and reason

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImagesError(InputError):
    """All image files that cannot be read.

    Args:
        failures: path and reason of each.
        total: number of images that were read.

    Attributes:
        failures: path and reason of each, sorted.
    """

    what = "images cannot be read"
    remedy = "Replace them"

    def __init__(self, failures: Sequence[Failure], total: int) -> None:
        self.failures = sorted(set(failures))
        lines = self._lines()
        if len(lines) > NAMED:
            lines[NAMED:] = [f"  and {len(lines) - NAMED:,} more"]
        super().__init__(
            f"{len(self.failures):,} of {total:,} {self.what}:\n"
            + "\n".join(lines)
            + f"\n{self.remedy}, or remove them from the data set, and start again."
        )

    def _lines(self) -> list[str]:
        return [f"  {shown(path)}: {reason}" for path, reason in self.failures]


def open_image(path: str) -> Image.Image:
    """Opens an image file on the disk, at a URL, or in a tar file by its `member` path.

    Raises:
        InputError: for a format that is not supported or needs a package that is not installed.
        OSError, UnreachableError: when it cannot be read.
    """
    inside = part_of(path).end is not None
    if not inside and (reason := why_refused(suffix_of(path))):
        raise InputError(reason)
    return Image.open(io.BytesIO(read_bytes(path)) if inside or is_url(path) else path)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the rotation in the EXIF data.

    Reads only the header. In a PNG file the EXIF data may follow the pixels and is then not found.
    """
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def to_rgb(image: Image.Image, shrink: float = 1.0) -> Image.Image:
    """Converts an image to upright 8-bit RGB.

    Grey is repeated in all channels; 16-bit grey is scaled by 255/65535; floating-point grey must
    lie in [0, 1]; transparent images are placed on white; an animation gives its first frame; CMYK
    is converted without a colour profile.

    Args:
        image: image opened with Pillow, not loaded yet.
        shrink: how many times smaller the result may be. JPEG files are then decoded at 1/2, 1/4
            or 1/8 of their size where possible, which is several times faster; other formats keep
            their size.

    Raises:
        OSError, ValueError, ...: when the file is broken; Pillow knows no common error for it.
    """
    turn = _TURNS.get(_orientation(image))
    if shrink > 1:
        width, height = image.size
        image.draft("RGB", (math.ceil(width / shrink), math.ceil(height / shrink)))
    if image.mode.startswith("I"):
        image = _from_levels(image, 65535)
    elif image.mode == "F":
        image = _from_levels(image, 1)
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def resize_crop(image: Image.Image, size: int, margin: float = 1.0) -> Tensor:
    """Centre crop: the central square, `1 / margin` of the shorter side, resized to `size`.

    Equivalent to resizing the shorter side to `margin * size` and cropping the central `size`
    pixels, but in one step. An image that already has that size is unchanged.

    Returns: (3, size, size) uint8.
    """
    width, height = image.size
    side = min(width, height) / margin
    left, top = (width - side) / 2, (height - side) / 2
    return to_tensor(image.resize((size, size), RESAMPLE, (left, top, left + side, top + side)))


def to_tensor(image: Image.Image) -> Tensor:
    """Pixels of an RGB image, (3, H, W) uint8."""
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def read_image(path: str, size: int, margin: float = 1.0) -> Tensor:
    """Reads one file and returns (3, size, size) uint8 by `resize_crop`."""
    with open_image(path) as image:
        rgb = to_rgb(image, min(image.size) / (margin * size))
    return resize_crop(rgb, size, margin)


def read_images(paths: Sequence[str], size: int) -> Tensor:
    """Reads many small files in parallel threads.

    Returns: (N, 3, size, size) uint8.

    Raises:
        UnreadableImagesError: lists every file that cannot be read.
    """
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)

    def read(i: int) -> None:
        images[i] = read_image(paths[i], size)

    for_each_file(paths, read)
    return images


def check_images(paths: Sequence[str]) -> None:
    """Decodes every file in parallel threads, as small as its format allows.

    Raises:
        UnreadableImagesError: lists every file that cannot be read.
    """

    def decode(i: int) -> None:
        with open_image(paths[i]) as image:
            to_rgb(image, shrink=8)

    for_each_file(paths, decode)


def check_remote(paths: Sequence[str]) -> None:
    """Checks with the servers that the files at URLs exist.

    Raises:
        UnreadableImagesError: lists every file that is refused.
        UnreachableError: when a server does not answer.
    """
    if found := refused(paths):
        raise UnreadableImagesError(found, len(paths))


def resize_images(images: Tensor, size: int) -> Tensor:
    """Resizes (N, 3, H, W) uint8 images to (N, 3, size, size); returns them if they have it."""
    if images.shape[-2:] == (size, size):
        return images
    arrays = images.permute(0, 2, 3, 1).numpy()
    return torch.stack([resize_crop(Image.fromarray(array), size) for array in arrays])


def natural_size(paths: Sequence[str]) -> int:
    """Default image size for a set of files.

    Returns: the median of the shorter sides of about 100 evenly spaced files, if it is at most
        `SMALL`; else `LARGE`.
    """
    sides = []
    chosen = paths[:: max(1, len(paths) // 100)]
    prefetch(chosen)
    for path in chosen:
        try:
            with open_image(path) as image:
                sides.append(min(image.size))
        except UnreachableError:
            raise
        except Exception:  # broken files are reported when all are decoded
            continue
    median = int(np.median(sides)) if sides else LARGE
    return median if median <= SMALL else LARGE


def reason_of(error: Exception, path: str) -> str:
    """Why a file could not be read, in one line that does not repeat its path."""
    if isinstance(error, UnidentifiedImageError):
        empty = not part_of(path).end and size_of(path) == 0
        return "the file is empty" if empty else "not an image file"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {str(error).split(',')[0]}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def in_threads(count: int, work: Callable[[int], Failure | None]) -> list[Failure]:
    """Calls `work(0)` to `work(count - 1)` in threads; Pillow releases the GIL while decoding.

    Returns: the failures that the calls returned.
    """

    def chunk(begin: int) -> list[Failure]:
        found = map(work, range(begin, min(begin + CHUNK, count)))
        return [failure for failure in found if failure]

    with ThreadPoolExecutor() as pool:
        return [f for found in pool.map(chunk, range(0, count, CHUNK)) for f in found]


def for_each_file(paths: Sequence[str], work: Callable[[int], None]) -> None:
    """Calls `work(i)` for every file in threads.

    Raises:
        UnreadableImagesError: lists every file for which it failed.
        UnreachableError: when a server does not answer.
    """

    def tried(i: int) -> Failure | None:
        try:
            with_new_copy(lambda: work(i), paths[i])
        except UnreachableError:
            raise
        except Exception as error:  # broken files make Pillow raise nearly anything
            return paths[i], reason_of(error, paths[i])
        return None

    if found := in_threads(len(paths), tried):
        raise UnreadableImagesError(found, len(paths))


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # Pillow rotates those itself
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the pixels are intact even if the EXIF block is broken
        return 1


def _from_levels(image: Image.Image, white: float) -> Image.Image:
    """Converts a grey image with levels from 0 to `white` to 8 bits."""
    levels = np.asarray(image).astype(np.float64)
    low, high = levels.min(), levels.max()
    if not (low >= 0 and high <= white):
        raise InputError(
            f"levels of a {image.mode} image must lie in [0, {white}], got {low:g} to {high:g}"
        )
    return Image.fromarray(np.rint(levels * (255 / white)).astype(np.uint8))

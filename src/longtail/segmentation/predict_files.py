"""Predictions for image files: index PNGs, and overlays with a legend."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from longtail.data import UnreadableImagesError, images_below
from longtail.data.images import RESAMPLE, open_image, reason_of, to_rgb, to_tensor
from longtail.errors import InputError
from longtail.files import read_text, write_text
from longtail.segmentation.masks import class_colours, mask_picture, save_png
from longtail.segmentation.model import upsample
from longtail.segmentation.pairs import scaled_size
from longtail.segmentation.predict import classes_of, dense_logits, target_of
from longtail.segmentation.run import PixelRun
from longtail.sharing import shared
from longtail.shift import expressed_prior
from longtail.text import printable
from longtail.training.distributed import best_device

CLASSES = "classes.txt"  # names of the classes, in every folder of predictions
OPACITY = 0.5
FONT_SIZE = 13
LINE, SWATCH, GAP = 20, 12, 8  # pixels of the legend


@dataclass(frozen=True)
class Segmented:
    """Files that were written.

    Args:
        masks: index PNG of each image.
        overlays: image with its classes in colour and their names.
    """

    masks: tuple[Path, ...]
    overlays: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.masks)


def segment_files(
    run: PixelRun,
    files: str | Path | Sequence[str | Path],
    out: Path,
    target_prior: str | None = None,
    *,
    window: Sequence[int] | None = None,
    flip: bool | None = None,
) -> Segmented:
    """Predicts the class of every pixel of image files, at their own size.

    Args:
        run: a finished run.
        files: image files, and folders to search for them.
        out: folder for `NAME.png`, whose values are classes, `NAME-overlay.png`, and `classes.txt`.
            Images below a folder of `files` keep their sub-folders.
        target_prior: `uniform`, `source` or a file of probabilities; default: the run's own.
        window: height and width of sliding windows; default: that of the run's settings.
        flip: average with the mirrored image; default: that of the run's settings.

    Raises:
        InputError: when a file is missing, no image is found, or a result would overwrite another
            one, an image, or a file that is not of an earlier prediction.
        UnreadableImagesError: names all images that cannot be read, after the others are written.
    """
    results = [*_results(files, out).items()]
    listed = "\n".join(map(printable, run.model_card()["class_names"])) + "\n"
    _check_overwritten(out / CLASSES, listed, [path for _, written in results for path in written])
    write_text(out / CLASSES, listed)
    work = partial(_segment, run, target_prior, window, flip)
    reasons = shared(work, results)
    found = [(*pair, reason) for pair, reason in zip(results, reasons, strict=True)]
    if failures := [(str(file), reason) for file, _, reason in found if reason]:
        raise UnreadableImagesError(failures, len(results))
    masks, overlays = zip(*(written for _, written, _ in found), strict=True)
    return Segmented(masks, overlays)


def _segment(
    run: PixelRun,
    target_prior: str | None,
    window: Sequence[int] | None,
    flip: bool | None,
    results: Sequence[tuple[Path, tuple[Path, Path]]],
) -> Generator[str | None, None, None]:
    """Writes mask and overlay of each image; gives the reason where it cannot be read."""
    card, config = run.model_card(), run.config
    names = tuple(card["class_names"])
    device = torch.device(best_device())
    model = run.model().to(device)
    expressed = expressed_prior(card["expresses"], run.prior)
    target = target_of(config.get("prior_power"), target_prior, run.prior, names)
    for file, (mask_file, overlay_file) in results:
        try:
            with open_image(str(file)) as picture:
                image = to_rgb(picture)
        except Exception as error:  # broken files make Pillow raise nearly anything
            yield reason_of(error, str(file))
            continue
        given = image.resize(scaled_size(image.size, card.get("image_size")), RESAMPLE)
        logits = dense_logits(
            model,
            to_tensor(given).to(device)[None],
            window=config.get("window") if window is None else window,
            flip=config.get("flip_test", False) if flip is None else flip,
        )
        pixels = to_tensor(image)
        mask = classes_of(upsample(logits, pixels.shape[1:]), expressed, target)[0].cpu()
        save_png(mask_picture(mask, len(names)), mask_file)
        save_png(overlay(pixels, mask, names), overlay_file)
        yield None


def _results(files: str | Path | Sequence[str | Path], out: Path) -> dict[Path, tuple[Path, Path]]:
    """Files of each image's mask and overlay.

    Raises:
        InputError: when a result would overwrite another one, or an image.
    """
    results = {}
    for image, inside in find_images(files).items():
        stem = out / inside.with_suffix("")
        results[image] = (
            stem.with_name(f"{stem.name}.png"),
            stem.with_name(f"{stem.name}-overlay.png"),
        )
    images = {file.resolve() for file in results}
    taken: dict[Path, Path] = {}
    for image, written in results.items():
        for path in written:
            if path.resolve() in images:
                raise InputError(f"{path}, of {image}, would overwrite an image to predict")
            if path in taken:
                raise InputError(f"{taken[path]} and {image} would both be written to {path}")
            taken[path] = image
    return results


def _check_overwritten(classes: Path, listed: str, written: Sequence[Path]) -> None:
    """Rejects a folder with files that are not of predictions for the same classes.

    Args:
        classes: the file of the class names.
        listed: what it will contain.
        written: the other files.

    Raises:
        InputError: names the first file that would be overwritten.
    """
    earlier = classes.is_file() and read_text(classes) == listed
    taken = next((path for path in (classes, *written) if path.exists()), None)
    if taken and not earlier:
        raise InputError(
            f"out of predict must be a new folder, or one of earlier predictions for the same "
            f"classes; {taken} would be overwritten"
        )


def overlay(image: Tensor, mask: Tensor, class_names: Sequence[str]) -> Image.Image:
    """An image with the classes of its pixels in colour, and a legend below.

    Args:
        image: (3, H, W) uint8.
        mask: (H, W), class of each pixel.
        class_names: names of all classes; the legend lists those in the mask, largest first.
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
    """Swatches with their texts, in as many lines as the width requires."""
    font = ImageFont.load_default(FONT_SIZE)
    corners = []
    x, y = GAP, GAP // 2
    for text in texts:
        needed = SWATCH + GAP // 2 + int(font.getlength(text)) + GAP
        if x + needed > width and x > GAP:
            x, y = GAP, y + LINE
        corners.append((x, y))
        x += needed
    picture = Image.new("RGB", (width, y + LINE), "white")
    draw = ImageDraw.Draw(picture)
    for (left, top), text, colour in zip(corners, texts, colours, strict=True):
        draw.rectangle((left, top + 3, left + SWATCH, top + 3 + SWATCH), fill=colour)
        draw.text((left + SWATCH + GAP // 2, top), text, fill="black", font=font)
    return picture


def find_images(files: str | Path | Sequence[str | Path]) -> dict[Path, Path]:
    """Image files among files and folders; those of a folder sorted by path.

    Returns: each file, with its path below the given folder, or its name.
    Raises:
        InputError: when one does not exist, or there is no image at all.
    """
    files = [files] if isinstance(files, str | Path) else files
    found: dict[Path, Path] = {}
    missing = [str(file) for file in files if not Path(file).exists()]
    if missing:
        raise InputError(f"no such file or folder: {', '.join(missing)}")
    for file in map(Path, files):
        if file.is_dir():
            found |= {image: image.relative_to(file) for image in images_below(file)}
        else:
            found[file] = Path(file.name)
    if not found:
        raise InputError(f"no image file in {', '.join(map(str, files))}")
    return found

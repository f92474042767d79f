"""A trained segmentation model on new image files: index PNGs, and overlays with a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from longtail.data import UnreadableImagesError
from longtail.data.images import RESAMPLE, reason_of, to_rgb, to_tensor
from longtail.data.segmentation import mask_picture, save_png, scaled_size
from longtail.errors import InputError
from longtail.files import write_text
from longtail.models import upsample
from longtail.shift import resolve_prior
from longtail.training.predict import find_images
from longtail.training.processes import best_device
from longtail.training.segmentation.overlay import overlay
from longtail.training.segmentation.predict import classes_of, dense_logits, target_of
from longtail.training.segmentation.run import PixelRun


@dataclass(frozen=True)
class Segmented:
    """What was written.

    Args:
        masks: index PNG of each image.
        overlays: picture of each image with its classes and their names.
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
    """Finds the class of every pixel of image files, at their own size.

    Args:
        run: a finished run.
        files: image files, and folders that are searched for them.
        out: folder; it gets `NAME.png`, whose values are classes, `NAME-overlay.png`, and
            `classes.txt`. Below a folder of `files`, images keep their sub-folders.
        target_prior: `uniform`, `source` or a file of probabilities; the run's own when not given.
        window: height and width of sliding windows; as in the run's settings when not given.
        flip: average with the mirrored image; as in the run's settings when not given.

    Raises:
        ValueError: when a file is missing, no image was found, or a result would be written over
            another one or over an image.
        UnreadableImagesError: names all images that cannot be read, once the others are written.
    """
    card, config = run.model_card(), run.config
    names = tuple(card["class_names"])
    device = torch.device(best_device())
    model = run.model().to(device)
    expressed = resolve_prior(card["expresses"], run.prior, len(names))
    target = target_of(config["prior_power"], target_prior, run.prior, names)
    failures: list[tuple[str, str]] = []
    masks, overlays = [], []
    places = _places(files, out)
    for file, place in places.items():
        try:
            with Image.open(file) as picture:
                image = to_rgb(picture)
        except Exception as error:  # broken files make Pillow raise nearly anything
            failures.append((str(file), reason_of(error, str(file))))
            continue
        given = image.resize(scaled_size(image.size, card["image_size"]), RESAMPLE)
        logits = dense_logits(
            model,
            to_tensor(given).to(device)[None],
            window=config["window"] if window is None else window,
            flip=config["flip_test"] if flip is None else flip,
        )
        pixels = to_tensor(image)
        mask = classes_of(upsample(logits, pixels.shape[1:]), expressed, target)[0].cpu()
        mask_file, overlay_file = _results(place)
        save_png(mask_picture(mask, len(names)), mask_file)
        save_png(overlay(pixels, mask, names), overlay_file)
        masks.append(mask_file)
        overlays.append(overlay_file)
    write_text(out / "classes.txt", "\n".join(names) + "\n")
    if failures:
        raise UnreadableImagesError(failures, len(places))
    return Segmented(tuple(masks), tuple(overlays))


def _places(files: str | Path | Sequence[str | Path], out: Path) -> dict[Path, Path]:
    """Where the results of each image go, without suffix.

    Raises:
        ValueError: when a result would be written over another one, or over an image.
    """
    places = {file: out / inside.with_suffix("") for file, inside in find_images(files).items()}
    images = {file.resolve() for file in places}
    taken: dict[Path, Path] = {}
    for image, place in places.items():
        for result in _results(place):
            if result.resolve() in images:
                raise InputError(f"{result}, of {image}, would be written over an image to predict")
            if result in taken:
                raise InputError(f"{taken[result]} and {image} would both be written to {result}")
            taken[result] = image
    return places


def _results(place: Path) -> tuple[Path, Path]:
    """The files of an image's mask and overlay."""
    return place.with_name(place.name + ".png"), place.with_name(place.name + "-overlay.png")

"""A trained segmentation model on new image files: index PNGs, and overlays with a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from longtail.data import UnreadableImagesError
from longtail.data.images import RESAMPLE, reason_of, to_rgb, to_tensor
from longtail.data.segmentation import mask_picture, save_png, scaled_size
from longtail.files import write_text
from longtail.models import upsample
from longtail.shift import resolve_prior
from longtail.training.predict import find_images
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
        ValueError: when a file is missing, no image was found, or two would be written to one
            place.
        UnreadableImagesError: names all images that cannot be read, once the others are written.
    """
    card, config = run.model_card(), run.config
    names = tuple(card["class_names"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = run.model().to(device)
    expressed = resolve_prior(card["expresses"], run.prior, len(names))
    target = target_of(config["prior_power"], target_prior, run.prior, names)
    failures: list[tuple[str, str]] = []
    masks, overlays = [], []
    places = _places(files, out)
    for file, place in places.items():
        try:
            image = _read(file)
        except Exception as error:  # broken files make Pillow raise nearly anything
            failures.append((str(file), reason_of(error, str(file))))
            continue
        given = _bring_to(image, card["image_size"]).to(device)[None]
        logits = dense_logits(
            model,
            given,
            window=config["window"] if window is None else window,
            flip=config["flip_test"] if flip is None else flip,
        )
        mask = classes_of(upsample(logits, image.shape[1:]), expressed, target)[0].cpu()
        masks.append(place.with_name(place.name + ".png"))
        overlays.append(place.with_name(place.name + "-overlay.png"))
        save_png(mask_picture(mask, len(names)), masks[-1])
        save_png(overlay(image, mask, names), overlays[-1])
    write_text(out / "classes.txt", "\n".join(names) + "\n")
    if failures:
        raise UnreadableImagesError(failures, len(places))
    return Segmented(tuple(masks), tuple(overlays))


def _places(files: str | Path | Sequence[str | Path], out: Path) -> dict[Path, Path]:
    """Where the results of each image go, without suffix."""
    places: dict[Path, Path] = {}
    for given in [Path(files)] if isinstance(files, str | Path) else map(Path, files):
        for image in find_images([given]):
            inside = image.relative_to(given) if given.is_dir() else Path(image.name)
            places[image] = out / inside.with_suffix("")
    taken: dict[Path, Path] = {}
    for image, place in places.items():
        if place in taken:
            raise ValueError(f"{taken[place]} and {image} would both be written to {place}.png")
        taken[place] = image
    return places


def _read(file: Path) -> Tensor:
    with Image.open(file) as picture:
        return to_tensor(to_rgb(picture))


def _bring_to(image: Tensor, shorter: int | None) -> Tensor:
    """The image at the size that the model was trained with."""
    size = scaled_size((image.shape[2], image.shape[1]), shorter)
    if size == (image.shape[2], image.shape[1]):
        return image
    return to_tensor(Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size, RESAMPLE))

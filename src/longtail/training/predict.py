"""Predictions of a trained model for image files."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from longtail.data import CentreCrop, files_below, is_image
from longtail.errors import InputError
from longtail.files import whole_file
from longtail.shift import (
    PriorEstimate,
    adjust,
    estimate_prior,
    expressed_prior,
    resolve_prior,
)
from longtail.text import csv_cell
from longtail.training.distributed import best_device
from longtail.training.inference import AnyImage, split_logits, split_of
from longtail.training.run import Run


@dataclass(frozen=True)
class Classified:
    """Predicted classes of image files.

    Args:
        paths: N files.
        logits: (N, C), adjusted to the target prior.
        class_names: C names.
        estimate: estimated class prior of the images, where that was asked for.
    """

    paths: tuple[str, ...]
    logits: Tensor
    class_names: tuple[str, ...]
    estimate: PriorEstimate | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def top(self, k: int) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """Each file with its `k` most probable classes, most probable first."""
        found = torch.softmax(self.logits.double(), 1).topk(min(k, len(self.class_names)))
        for path, classes, values in zip(
            self.paths, found.indices.tolist(), found.values.tolist(), strict=True
        ):
            names = [self.class_names[c] for c in classes]
            yield path, list(zip(names, values, strict=True))

    def write(self, path: Path, k: int) -> None:
        """Writes a CSV file: path, class, probability, and the next classes up to the k-th."""
        k = min(k, len(self.class_names))
        more = [f"{what}_{n}" for n in range(2, k + 1) for what in ("class", "probability")]
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["path", "class", "probability", *more])
            for file, top in self.top(k):
                cells = [cell for name, p in top for cell in (csv_cell(name), f"{p:.6f}")]
                writer.writerow([csv_cell(file), *cells])


def predict_files(
    run: Run, files: str | Path | Sequence[str | Path], target_prior: str | None = None
) -> Classified:
    """Classifies image files with a run's model.

    Args:
        run: a finished run.
        files: image files, and folders that are searched for them.
        target_prior: `uniform`, `source`, a file of probabilities, or `estimate`: the class prior
            of these images, estimated with the run's labelled predictions as the source; default:
            the prior that the model expresses.

    Raises:
        InputError: when a file is missing, no image is found, some cannot be read (all of them
            are named), or there are no labelled predictions to estimate with.
    """
    card = run.model_card()
    names = tuple(card["class_names"])
    # Errors of input come before the model sees the first image.
    source = run.predictions() if target_prior == "estimate" else None
    target = None
    if target_prior is not None and source is None:
        target = resolve_prior(target_prior, run.prior, len(names), names)
    crop = CentreCrop(card["image_size"], card["margin"])
    split = split_of(list(find_images(files)), crop)
    model = run.model()
    device = torch.device(best_device())
    logits = split_logits(model.backbone, model.head, split, crop, device)
    expressed = expressed_prior(card["expresses"], run.prior)
    estimate = None
    if source is not None:
        estimate = estimate_prior(
            source.logits, source.labels, logits, expressed, training_prior=run.prior
        )
        target = estimate.prior
    if target is not None:
        logits = adjust(logits, expressed, target)
    return Classified(split.paths, logits, names, estimate)


def predict_images(run: Run, images: AnyImage | Sequence[AnyImage]) -> Classified:
    """Classifies paths, PIL images or arrays with a run's model.

    Args:
        run: a finished run.
        images: see `longtail.training.inference.split_of`.

    Raises:
        InputError: for an image of another type or shape.
        UnreadableImagesError: names every file that cannot be read.
    """
    card = run.model_card()
    crop = CentreCrop(card["image_size"], card["margin"])
    split, model = split_of(images, crop), run.model()
    logits = split_logits(model.backbone, model.head, split, crop, torch.device(best_device()))
    return Classified(split.paths, logits, tuple(card["class_names"]))


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
            images = sorted(Path(path) for path in files_below(file) if is_image(path))
            found |= {image: image.relative_to(file) for image in images}
        else:
            found[file] = Path(file.name)
    if not found:
        raise InputError(f"no image file in {', '.join(map(str, files))}")
    return found

"""Predictions of a trained model for images: in memory, or written row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from longtail.data import Split, UnreadableImagesError
from longtail.shift import PriorEstimate
from longtail.training.classifier import Batch, Classifier, top_classes
from longtail.training.file_list import list_files
from longtail.training.inference import AnyImage, split_of
from longtail.training.progress import progress_bar
from longtail.training.rows import Cell, table_file
from longtail.training.run import Run


@dataclass(frozen=True)
class Classified:
    """Predicted classes of images.

    Args:
        paths: N files.
        logits: (N, C), adjusted to the target prior.
        class_names: C names.
        unlike: (N,), share of held-out images that are at least as unlike the training images; see
            `longtail.training.reference.Reference`. NaN if the run has no reference.
        estimate: estimated class prior of the images, where that was asked for.
    """

    paths: tuple[str, ...]
    logits: Tensor
    class_names: tuple[str, ...]
    unlike: Tensor
    estimate: PriorEstimate | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def top(self, k: int) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """Each file with its `k` most probable classes, most probable first."""
        yield from zip(self.paths, top_classes(self.logits, self.class_names, k), strict=True)


@dataclass(frozen=True)
class Written:
    """Predictions that were written to a file.

    Args:
        path: the file.
        images: number of images that were predicted.
        failed: number of files that could not be read; each has a row with its `error`.
        class_names: C names.
        estimate: estimated class prior of the images, where that was asked for.
    """

    path: Path
    images: int
    failed: int
    class_names: tuple[str, ...]
    estimate: PriorEstimate | None = None

    def __len__(self) -> int:
        return self.images

    @property
    def problems(self) -> range:
        """Not empty if files could not be read."""
        return range(self.failed)


def predict_files(
    run: Run,
    files: str | Path | Sequence[str | Path],
    target_prior: str | None = None,
    *,
    path_column: str | None = None,
    root: str | Path | None = None,
) -> Classified:
    """Classifies image files with a run's model.

    Args:
        run: a finished run.
        files: image files, folders and tables; see `list_files`.
        target_prior: see `Classifier`.
        path_column: see `list_files`.
        root: see `list_files`.

    Raises:
        InputError: when no image is found, or there are no labelled predictions to estimate with.
        UnreadableImagesError: names every file that cannot be read.
    """
    classifier = Classifier(run, target_prior)
    found = list_files(files, path_column, root)
    return _classified(classifier, split_of(found.paths, classifier.crop), tuple(found.names))


def predict_images(run: Run, images: AnyImage | Sequence[AnyImage]) -> Classified:
    """Classifies paths, PIL images or arrays with a run's model.

    Args:
        run: a finished run.
        images: see `longtail.training.inference.split_of`.

    Raises:
        InputError: for an image of another type or shape.
        UnreadableImagesError: names every file that cannot be read.
    """
    classifier = Classifier(run)
    split = split_of(images, classifier.crop)
    return _classified(classifier, split, split.paths)


def write_predictions(
    run: Run,
    files: str | Path | Sequence[str | Path],
    out: Path,
    target_prior: str | None = None,
    *,
    top: int,
    path_column: str | None = None,
    root: str | Path | None = None,
) -> Written:
    """Classifies image files, and writes a row for each as it comes, in constant memory.

    The columns are `path`, `class`, `probability`, the next classes with theirs, `margin`
    (probability of the first class minus that of the second), `unlike`, and `error`, which says
    why a file could not be read, in which case the other columns are empty.

    Args:
        run: a finished run.
        files: image files, folders and tables; see `list_files`.
        out: CSV, Parquet or JSON lines file, by its suffix; see `longtail.training.rows`.
        target_prior: see `Classifier`.
        top: number of classes in a row.
        path_column: see `list_files`.
        root: see `list_files`.

    Raises:
        InputError: when no image is found, or there are no labelled predictions to estimate with.
        OSError: when the file cannot be written.
    """
    classifier = Classifier(run, target_prior)
    names, top = classifier.class_names, min(top, len(classifier.class_names))
    found = list_files(files, path_column, root)
    failed = 0
    with (
        progress_bar("predict", len(found.paths)) as seen,
        table_file(out, _columns(top)) as write,
    ):
        for batch in classifier.batches(split_of(found.paths, classifier.crop)):
            rows = _rows(batch, found.names, names, top)
            write(rows)
            failed += len(batch.failures)
            seen(len(rows))
    return Written(out, len(found.paths) - failed, failed, names, classifier.estimate)


def _classified(classifier: Classifier, split: Split, names: tuple[str, ...]) -> Classified:
    """Predictions in memory.

    Raises:
        UnreadableImagesError: names every file that cannot be read.
    """
    batches = list(classifier.batches(split))
    failures = [(names[row], reason) for batch in batches for row, reason in batch.failures]
    if failures:
        raise UnreadableImagesError(failures, len(split))
    return Classified(
        names,
        torch.cat([batch.logits for batch in batches]),
        classifier.class_names,
        torch.cat([batch.unlike for batch in batches]),
        classifier.estimate,
    )


def _columns(top: int) -> dict[str, type]:
    """Name and type of the columns of a table of predictions."""
    columns: dict[str, type] = {"path": str, "class": str, "probability": float}
    for rank in range(2, top + 1):
        columns |= {f"class_{rank}": str, f"probability_{rank}": float}
    return columns | {"margin": float, "unlike": float, "error": str}


def _rows(
    batch: Batch, paths: Sequence[str], class_names: Sequence[str], top: int
) -> list[list[Cell]]:
    """Rows of a batch, in the order of the images."""
    rows: dict[int, list[Cell]] = {}
    found = top_classes(batch.logits, class_names, max(2, top))
    for row, classes, share in zip(batch.read, found, batch.unlike.tolist(), strict=True):
        cells: list[Cell] = [cell for pair in classes[:top] for cell in pair]
        margin = classes[0][1] - classes[1][1]
        rows[row] = [*cells, margin, None if share != share else share, None]
    for row, reason in batch.failures:
        rows[row] = [*[None] * (2 * top + 2), reason]
    return [[_text(paths[row]), *rows[row]] for row in sorted(rows)]


def _text(path: str) -> str:
    """A path as valid UTF-8, whatever bytes it contains."""
    return path.encode("utf-8", "backslashreplace").decode()

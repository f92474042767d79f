"""Recommends a method for a data set, by cross-validation on features of its training split."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from rich.table import Table
from rich.text import Text

from longtail.data import DataConfig, Dataset, load
from longtail.data.records import Records, to_dataset
from longtail.errors import InputError
from longtail.models import create_backbone
from longtail.pictures.compare import CANDIDATES, Candidate, Row, cross_validate, recommend
from longtail.pictures.settings import BACKBONE
from longtail.sharing import shared_by
from longtail.text import printable
from longtail.training.command import data_options
from longtail.training.embed import Embeddings, decoded_later
from longtail.training.frozen import frozen_features
from longtail.training.progress import progress_bar

SMALL = 3000  # training images up to which the cross-validation is repeated
REPEATS = 3


@dataclass(frozen=True)
class Advice:
    """Methods compared on a data set, and the recommended one.

    Args:
        data: the compared data, as for `longtail train`.
        class_names: name of each class.
        rows: one per candidate.
        recommended: the recommended row.
        backbone: name of the backbone.
        data_options: options of the command for the settings of the data.
    """

    data: str
    class_names: tuple[str, ...]
    rows: Sequence[Row]
    recommended: Row
    backbone: str
    data_options: Sequence[str] = ()

    @property
    def command(self) -> str:
        """The command that trains with the recommended method."""
        words = ["longtail", "train", self.data, *self.data_options]
        if self.backbone != BACKBONE:
            words += ["--backbone", self.backbone]
        return f"{shlex.join(words)} {self.recommended.candidate.options}"

    @property
    def words(self) -> str:
        """The recommendation in sentences."""
        best, name = self.recommended, self.recommended.candidate.name
        others = [row for row in self.rows if row is not best]
        alike = [row.candidate.name for row in others if not row.differs]
        plain = next((row for row in self.rows if row.candidate.name == "cross-entropy"), None)
        lines = [f"Recommended: {name}, balanced accuracy {percent(best.balanced_accuracy)}."]
        if plain and plain is not best:
            gain = best.balanced_accuracy - plain.balanced_accuracy
            beyond = "beyond chance" if plain.differs else "not beyond chance"
            lines.append(f"Cross-entropy: {_points(-gain)}, {beyond}.")
        if alike:
            lines.append(f"Not clearly different from the best: {', '.join(alike)}.")
        if best.candidate.after == "switch_prior":
            lines.append("Predict with --target-prior uniform.")
        return " ".join(lines)

    def table(self) -> Table:
        """The rows as a table for the terminal."""
        table = Table("method", "all", "balanced (95 %)", "few", "worst class", "log loss", "s")
        for row in sorted(self.rows, key=lambda row: -row.balanced_accuracy):
            low, high = (100 * value for value in row.interval)
            worst = self.class_names[row.worst_class]
            table.add_row(
                row.candidate.name,
                percent(row.accuracy),
                f"{percent(row.balanced_accuracy)} ({low:.1f} to {high:.1f})",
                percent(row.few),
                Text(f"{percent(row.worst)} {printable(worst)}"),
                f"{row.log_loss:.2f}",
                f"{row.seconds:.1f}",
            )
        return table


def advise(
    data: DataConfig | Embeddings | Dataset | Records,
    backbone: str = "auto",
    *,
    candidates: Sequence[Candidate] = CANDIDATES,
    seed: int = 0,
    devices: int = 1,
) -> Advice:
    """Compares methods on features of the training split by stratified cross-validation.

    The test split is not used.

    Args:
        data: the images, or features from `longtail.api.embed`.
        backbone: a pretrained backbone; default: EfficientNet-Lite0.
        candidates: the methods to compare.
        seed: seeds the folds.
        devices: processes that compute the features.

    Raises:
        InputError: when no class has two images.
    """
    backbone = BACKBONE if backbone == "auto" else backbone
    source = data.source if isinstance(data, DataConfig) else data.name
    settings: list[str] = []
    if isinstance(data, Embeddings):
        backbone, names = data.backbone, data.class_names
        values, classes = data.split("train")
        features, labels = torch.from_numpy(values), torch.from_numpy(classes)
    else:
        encoder = create_backbone(backbone, pretrained=True)
        workers = None
        if isinstance(data, DataConfig):
            workers, settings = data.workers, data_options(asdict(data))
            size = data.image_size or encoder.image_size
            data = load(decoded_later(data, size))
        elif isinstance(data, Records):
            kept = DataConfig(data.name, image_size=encoder.image_size, check="exists")
            data = to_dataset(data, kept)
        with shared_by(devices):
            features = frozen_features(data, encoder, workers)["train"]
        labels, names = data.train.labels, data.class_names
    if int(torch.bincount(labels).max()) < 2:
        raise InputError(f"{source} must have a class with two training images, to compare methods")
    repeats = REPEATS if len(labels) <= SMALL else 1
    with progress_bar("methods", len(candidates) * 5 * repeats) as seen:
        rows = cross_validate(
            features, labels, len(names), candidates, repeats=repeats, seed=seed, seen=seen
        )
    return Advice(source, names, rows, recommend(rows), backbone, settings)


def percent(share: float) -> str:
    """A share in percent with one decimal; n/a if it is undefined."""
    return "n/a" if share != share else f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0:+.1f} points"  # no minus zero

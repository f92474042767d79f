"""The data of a run for the report, and how they are read from a run folder."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.files import read_values
from longtail.metrics import SampleScores, metrics_from_scores, score_samples
from longtail.prior import ClassPrior
from longtail.shift import adjust, expressed_prior
from longtail.training import Predictions, Run, RunFolder
from longtail.training.predictions import checked_labels

BATCH_ELEMENTS = 2**24  # logits in memory at a time: 64 MiB of float32
EXAMPLES = 12  # training files that are kept per class, since some may be gone


@dataclass(frozen=True)
class RunData:
    """One run as shown in the report; unknown values are shown as n/a.

    Args:
        name: name shown in the report.
        class_names: name of each class, or empty.
        prior: class prior of the training set.
        scores: `longtail.metrics.score_samples` of the test logits. The logits themselves are not
            kept, so that six runs with 8,142 classes fit in memory.
        uniform: the same for the logits adjusted to the uniform prior.
        paths: file of each test image, or empty.
        examples: training files of each class name, at most `EXAMPLES`.
        saved_metrics: metrics to show if there are no scores.
        config: settings, nested.
        history: one record per epoch.
        environment: versions, device, command, nested.
        expressed: the prior that the logits express.
        split: name of the evaluated split.
        folder: the run folder, for commands.
        stages: folders of the stages that were trained as part of it.

    Raises:
        ValueError: when scores come without the prior and the names of their classes, or the paths
            are not one per image.
    """

    name: str
    class_names: Sequence[str] = ()
    prior: ClassPrior | None = None
    scores: SampleScores | None = None
    uniform: SampleScores | None = None
    paths: Sequence[str] = ()
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    saved_metrics: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    expressed: str | Sequence[float] | None = None
    split: str = "test"
    folder: str = "RUN"
    stages: Sequence[str] = ()

    def __post_init__(self) -> None:
        known = self.prior.num_classes if self.prior else 0
        scored = self.scores.num_classes if self.scores else known
        if not known == scored == len(self.class_names):
            raise InputError(
                f"class_names, prior and scores of run {self.name!r} must have the same classes, "
                f"got {len(self.class_names)}, {known} and {scored}"
            )
        if self.paths and self.scores and len(self.paths) != len(self.scores.labels):
            raise InputError(
                f"paths of run {self.name!r} must be one per image, got {len(self.paths)} for "
                f"{len(self.scores.labels)}"
            )

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics of the scores if there are any, else the saved ones."""
        if self.scores is None or self.prior is None:
            return self.saved_metrics
        return metrics_from_scores(self.scores, self.prior)

    @property
    def method(self) -> str | None:
        """Name of the method in the settings."""
        return self.setting("method", "name") or self.setting("method")

    def setting(self, *keys: str) -> str | None:
        """A setting as text, a list without brackets; None if the settings do not have it."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, list):
            return ", ".join(map(str, value))
        return None if value is None or isinstance(value, Mapping) else str(value)


def load_run(path: str | Path) -> RunData:
    """Reads a run folder; an unfinished run, or one that has lost files, shows what there is.

    Args:
        path: run folder; only its `config.yaml` is required.

    Raises:
        ValueError: when the folder is not a run folder, or one of its files is corrupt; the
            message names the file.
    """
    run = Run(path)
    file = run.folder / "predictions.parquet"
    predictions = _read_predictions(file) if file.is_file() else {}
    return RunData(
        **common_parts(run),
        **predictions,
        examples=_training_files(run.folder / "split.csv"),
        folder=Path(path).as_posix(),
        stages=[stage.folder.as_posix() for stage in run.stages],
    )


def common_parts(run: RunFolder) -> dict[str, Any]:
    """What runs of all tasks share: name, settings, history, environment and saved metrics."""
    environment = run.folder / "environment.json"
    return {
        "name": run.folder.resolve().name,
        "config": run.config,
        "environment": read_values(environment) if environment.is_file() else {},
        "history": run.history,
        "saved_metrics": run.metrics if run.finished else {},
    }


def _training_files(path: Path) -> dict[str, list[str]]:
    """The first training files of each class, from the table of the run's splits."""
    found: dict[str, list[str]] = {}
    if not path.is_file():
        return found
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as handle:
            for row in csv.DictReader(handle):
                if row.get("split") == "train" and row.get("path") and row.get("label"):
                    files = found.setdefault(row["label"], [])
                    if len(files) < EXAMPLES:
                        files.append(row["path"])
    except csv.Error as error:
        raise InputError(f"{path} is not a valid table: {error}") from error
    return found


def _read_predictions(path: Path) -> dict[str, Any]:
    """Scores the logits as they are read, so that they are never in memory as a whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        about = Predictions.about(file.schema_arrow)
        prior, num_classes = ClassPrior(about["class_counts"]), len(about["class_names"])
        expressed = expressed_prior(about["expressed"], prior)
        uniform = torch.full((num_classes,), 1 / num_classes, dtype=torch.float64)
        rows = max(1, BATCH_ELEMENTS // num_classes)
        scores, adjusted, paths = [], [], []
        for batch in file.iter_batches(rows, columns=["logits", "label", "path"]):
            logits, labels = _to_tensors(batch, num_classes)
            scores.append(score_samples(logits, labels))
            adjusted.append(score_samples(adjust(logits, expressed, uniform), labels))
            paths += batch.column("path").to_pylist()
        return {
            "class_names": tuple(about["class_names"]),
            "prior": prior,
            "scores": SampleScores.joined(scores) if scores else None,
            "uniform": SampleScores.joined(adjusted) if adjusted else None,
            "paths": tuple(paths),
            "expressed": about["expressed"],
            "split": about["split"],
        }
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a valid predictions file: {error}") from error


def _to_tensors(batch: Any, num_classes: int) -> tuple[Tensor, Tensor]:
    logits = batch.column("logits").flatten().to_numpy(zero_copy_only=False)
    labels = batch.column("label").to_numpy(zero_copy_only=False)
    return torch.tensor(logits).view(-1, num_classes), checked_labels(labels, num_classes)

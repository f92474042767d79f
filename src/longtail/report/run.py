"""What a report needs of a run, and how it is read from a run folder."""

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
from longtail.training import Predictions, Run, RunFolder

BATCH_ELEMENTS = 2**24  # logits in memory at a time: 64 MiB of float32


@dataclass(frozen=True)
class RunData:
    """One run, as the report shows it; whatever is not known stays out and shows as n/a.

    Args:
        name: shown everywhere.
        class_names: name of each class, or empty.
        prior: of the training set.
        scores: what `longtail.metrics.score_samples` made of the test logits. Logits themselves
            are not kept, so that six runs of 8,142 classes fit in memory.
        saved_metrics: figures to show when there are no scores.
        config: settings, nested.
        history: a record an epoch.
        environment: versions, device, command, nested.
        expressed: the prior that the judged logits express.
        split: that was judged.

    Raises:
        ValueError: when scores come without the prior and the names of their classes.
    """

    name: str
    class_names: Sequence[str] = ()
    prior: ClassPrior | None = None
    scores: SampleScores | None = None
    saved_metrics: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    expressed: str | Sequence[float] | None = None
    split: str = "test"

    def __post_init__(self) -> None:
        known = self.prior.num_classes if self.prior else 0
        judged = self.scores.num_classes if self.scores else known
        if not known == judged == len(self.class_names):
            raise InputError(
                f"class_names, prior and scores of run {self.name!r} must have the same classes, "
                f"got {len(self.class_names)}, {known} and {judged}"
            )

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """Figures of the scores where there are any, else those that were saved."""
        if self.scores is None or self.prior is None:
            return self.saved_metrics
        return metrics_from_scores(self.scores, self.prior)


def load_run(path: str | Path) -> RunData:
    """Reads a run folder; a run that has not ended, or lost files, shows what there is.

    Args:
        path: run folder; of its files only `config.yaml` must be there.

    Raises:
        ValueError: when the folder holds no run, or a file of it is broken; it names the file.
    """
    run = Run(path)
    file = run.folder / "predictions.parquet"
    return RunData(**common_parts(run), **(_read_predictions(file) if file.is_file() else {}))


def common_parts(run: RunFolder) -> dict[str, Any]:
    """What runs of all tasks have: name, settings, history, environment and saved figures."""
    environment = run.folder / "environment.json"
    return {
        "name": run.folder.resolve().name,
        "config": run.config,
        "environment": read_values(environment) if environment.is_file() else {},
        "history": run.history,
        "saved_metrics": run.metrics if run.finished else {},
    }


def _read_predictions(path: Path) -> dict[str, Any]:
    """Judges the logits as they are read, so that they never lie in memory as a whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        about = Predictions.about(file.schema_arrow)
        num_classes = len(about["class_names"])
        rows = max(1, BATCH_ELEMENTS // num_classes)
        parts = [
            score_samples(*_to_tensors(batch, num_classes))
            for batch in file.iter_batches(rows, columns=["logits", "label"])
        ]
        return {
            "class_names": tuple(about["class_names"]),
            "prior": ClassPrior(about["class_counts"]),
            "scores": _join(parts) if parts else None,
            "expressed": about["expressed"],
            "split": about["split"],
        }
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be judged: {error}") from error


def _to_tensors(batch: Any, num_classes: int) -> tuple[Tensor, Tensor]:
    logits = batch.column("logits").flatten().to_numpy(zero_copy_only=False)
    labels = batch.column("label").to_numpy(zero_copy_only=False)
    return torch.tensor(logits).view(-1, num_classes), torch.tensor(labels)


def _join(parts: Sequence[SampleScores]) -> SampleScores:
    names = ("labels", "predicted", "confidence", "nll", "brier")
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return SampleScores(**columns, num_classes=parts[0].num_classes)

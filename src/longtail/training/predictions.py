"""Saved predictions of a run: raw logits, and what is needed to evaluate them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor

from longtail.errors import InputError
from longtail.files import parse_json, whole_file
from longtail.prior import ClassPrior
from longtail.training.card import CLASSES, wrong_entries


@dataclass(frozen=True)
class Predictions:
    """Raw logits of a split, and all that is needed to evaluate them.

    Args:
        logits: (N, C) float32, unadjusted.
        labels: (N,) class index.
        index: (N,) index of each image in its source.
        paths: file of each image.
        class_names: name of each class.
        prior: class prior of the training set.
        expressed: the prior that the logits express: `source`, `uniform` or (C,) probabilities.
        name: name of the data set.
        split: name of the split.
    """

    logits: Tensor
    labels: Tensor
    index: Tensor
    paths: tuple[str, ...]
    class_names: tuple[str, ...]
    prior: ClassPrior
    expressed: str | list[float]
    name: str
    split: str = "test"

    def write(self, path: Path) -> None:
        """Writes a Parquet file atomically."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(self.logits.float().reshape(-1).numpy())
        table = pa.table(
            {
                "logits": pa.FixedSizeListArray.from_arrays(flat, self.logits.shape[1]),
                "label": self.labels.numpy(),
                "index": self.index.numpy(),
                "path": pa.array(self.paths, pa.string()),
            }
        )
        about = {
            "class_names": self.class_names,
            "class_counts": self.prior.counts.tolist(),
            "expressed": self.expressed,
            "name": self.name,
            "split": self.split,
        }
        table = table.replace_schema_metadata({"longtail": json.dumps(about)})
        with whole_file(path) as part:
            pq.write_table(table, part)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Reads what `write` wrote.

        Raises:
            InputError: when the file is not a valid predictions file.
        """
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            about = cls.about(table.schema)
            columns = {name: table[name].combine_chunks() for name in ("logits", "label", "index")}
            values = columns["logits"].flatten().to_numpy(zero_copy_only=False)
            classes = len(about["class_names"])
            return cls(
                logits=torch.from_numpy(values.copy()).view(-1, classes),
                labels=checked_labels(columns["label"].to_numpy(), classes),
                index=torch.from_numpy(columns["index"].to_numpy().copy()),
                paths=tuple(table["path"].to_pylist()),
                class_names=tuple(about["class_names"]),
                prior=ClassPrior(about["class_counts"]),
                expressed=about["expressed"],
                name=about["name"],
                split=about["split"],
            )
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{path} is not a valid predictions file (corrupt or truncated): {error}"
            ) from error

    @staticmethod
    def about(schema: Any) -> dict[str, Any]:
        """Metadata of the file, from its pyarrow schema.

        Raises:
            InputError: when the metadata are incomplete or do not match the logits.
            KeyError: when there is no column of logits.
        """
        metadata = schema.metadata or {}
        if b"longtail" not in metadata:
            raise InputError("it has no metadata of longtail")
        about = parse_json(metadata[b"longtail"])
        missing = {"class_names", "class_counts", "expressed", "name", "split"} - {*about}
        if missing:
            raise InputError(f"its metadata has no {', '.join(sorted(missing))}")
        if wrong := wrong_entries({**about, "expresses": about["expressed"]}, CLASSES):
            raise InputError(f"in its metadata, {'; '.join(wrong)}")
        width = getattr(schema.field("logits").type, "list_size", None)
        if width != len(about["class_names"]):
            known = len(about["class_names"])
            raise InputError(f"it names {known} classes, its logits have {width}")
        return cast(dict[str, Any], about)


def checked_labels(values: NDArray[Any], classes: int) -> Tensor:
    """Labels of a file as a tensor.

    Raises:
        InputError: when one is not a class index.
    """
    if values.dtype.kind not in "iu" or not ((values >= 0) & (values < classes)).all():
        raise InputError(f"its labels must be whole numbers in [0, {classes})")
    return torch.from_numpy(values.astype("int64"))

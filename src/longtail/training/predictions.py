"""Saved predictions of a run: raw logits, and what is needed to evaluate them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longtail.errors import InputError
from longtail.files import parse_json, whole_file
from longtail.prior import ClassPrior
from longtail.training.card import CLASSES, wrong_entries

Column = NDArray[Any] | Sequence[str]


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
        columns: dict[str, Column] = {
            "logits": self.logits.float().numpy(),
            "label": self.labels.numpy(),
            "index": self.index.numpy(),
            "path": self.paths,
        }
        about = {
            "class_names": self.class_names,
            "class_counts": self.prior.counts.tolist(),
            "expressed": self.expressed,
            "name": self.name,
            "split": self.split,
        }
        write_columns(path, columns, about)

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
            return cls(
                logits=torch.from_numpy(matrix_of(table, "logits").copy()),
                labels=checked_labels(table["label"].to_numpy(), len(about["class_names"])),
                index=torch.from_numpy(table["index"].to_numpy().copy()),
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


def write_columns(path: Path, columns: Mapping[str, Column], about: Mapping[str, Any]) -> None:
    """Writes a Parquet file atomically.

    Args:
        path: the file.
        columns: by name, (N,) numbers, (N, D) numbers, which become lists, or N strings.
        about: metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(values: Column) -> Any:
        if not isinstance(values, np.ndarray):
            return pa.array(values, pa.string())
        if values.ndim == 1:
            return pa.array(values)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])

    table = pa.table({name: column(values) for name, values in columns.items()})
    with whole_file(path) as part:
        pq.write_table(table.replace_schema_metadata({"longtail": json.dumps(about)}), part)


def matrix_of(table: Any, name: str) -> NDArray[np.float32]:
    """Values (N, D) of a column of a file, a pyarrow table.

    Raises:
        InputError: when the column does not hold lists of numbers of the same length.
    """
    column = table[name].combine_chunks()
    width = getattr(column.type, "list_size", None)
    if width is None or column.null_count or column.flatten().null_count:
        raise InputError(f"its {name} must be lists of numbers of the same length, without gaps")
    values: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(table), width)
    return values.astype(np.float32, copy=False)


def checked_labels(values: NDArray[Any], classes: int) -> Tensor:
    """Labels of a file as a tensor.

    Raises:
        InputError: when one is not a class index.
    """
    if values.dtype.kind not in "iu" or not ((values >= 0) & (values < classes)).all():
        raise InputError(f"its labels must be whole numbers in [0, {classes})")
    return torch.from_numpy(values.astype("int64"))

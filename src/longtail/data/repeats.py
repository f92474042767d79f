"""Messages about pictures that occur in a data set more than once."""

import os

import numpy as np
from numpy.typing import NDArray

from longtail.data.paths import is_url
from longtail.data.problems import counted
from longtail.data.records import Records


class Repeats:
    """Pictures that occur more than once.

    Args:
        records: the rows.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._found: dict[str, dict[int, int]] = {
            "in two splits": {},
            "in two classes": {},
            "more than once in a class and split": {},
        }
        ends = [os.path.dirname(path) for path in (records.paths[0], records.paths[-1])]
        some_at_urls = any(map(is_url, ends))
        self._top = "" if some_at_urls else os.path.join(os.path.commonpath(ends), "")

    def add(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Adds pairs of rows; for each picture, the first partner of a kind is kept."""
        splits, labels = self._records.splits, self._records.labels
        across, differ = splits[one] != splits[other], labels[one] != labels[other]
        for kind, chosen in zip(
            self._found.values(), (across, differ, ~across & ~differ), strict=True
        ):
            for a, b in zip(one[chosen].tolist(), other[chosen].tolist(), strict=True):
                # Of a pair in two splits, the picture that is not trained on is counted.
                a, b = (b, a) if splits[a] != splits[b] == "train" else (a, b)
                kind.setdefault(b, a)

    def named(self, what: str, *, across: bool) -> list[str]:
        """One sentence per kind: those across splits and classes, or those within."""
        return [
            counted(f"{what} {kind}", [self._pair(*pair) for pair in pairs.items()])
            for kind, pairs in self._found.items()
            if pairs and kind.startswith("in two") == across
        ]

    def _pair(self, one: int, other: int) -> str:
        records = self._records

        def name(row: int) -> str:
            return (
                f"{records.paths[row].removeprefix(self._top)} "
                f"({records.class_names[records.labels[row]]}, {records.splits[row]})"
            )

        return f"{name(one)} and {name(other)}"

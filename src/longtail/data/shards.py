"""A data set in a few large tar files, for disks that do not like a million small ones."""

import json
import os

import numpy as np

from longtail.data.config import DataConfig
from longtail.data.images import member
from longtail.data.records import Records, report_problems
from longtail.errors import InputError

INDEX = "index.parquet"


def shards(config: DataConfig) -> Records:
    """A folder of tar files with their index, as `longtail data shard` writes them.

    An image is read by its place in its shard, in whatever order an epoch wants: all that holds of
    loose files (any number of processes and workers, an epoch that is gone on with) holds of them.
    A shard on a disk far away is read in pieces of an image each.

    Raises:
        ValueError: when the index is not one, or shards are missing or shorter than it says.
    """
    import pyarrow.parquet as pq

    folder = os.path.abspath(config.source)
    try:
        table = pq.read_table(os.path.join(folder, INDEX))
        about = json.loads(table.schema.metadata[b"longtail"])
        names = table["shard"].to_pylist()
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{config.source}/{INDEX} is no whole index of shards: {error}") from error
    offsets, sizes = table["offset"].to_pylist(), table["size"].to_pylist()
    ends: dict[str, int] = {}
    for name, offset, size in zip(names, offsets, sizes, strict=True):
        ends[name] = max(ends.get(name, 0), offset + size)
    short = [
        f"{name} ends before byte {end:,}"
        for name, end in ends.items()
        if not os.path.isfile(path := os.path.join(folder, name)) or os.path.getsize(path) < end
    ]
    report_problems(config.source, short)
    return Records(
        name=about["name"],
        paths=[
            member(os.path.join(folder, name), offset, size)
            for name, offset, size in zip(names, offsets, sizes, strict=True)
        ],
        labels=table["label"].to_numpy().copy(),
        splits=np.array(table["split"].to_pylist(), dtype="U5"),
        index=table["index"].to_numpy().copy(),
        class_names=tuple(about["class_names"]),
        origin=lambda row: str(table["path"][row]),
        check="exists",
    )

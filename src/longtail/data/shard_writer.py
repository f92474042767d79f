"""Writes image files to shards: a few large tar files and their index."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longtail.data.config import DataConfig
from longtail.data.formats import suffix_of
from longtail.data.load import read_source
from longtail.data.paths import file_of
from longtail.data.problems import report_problems
from longtail.data.reading import HELD, prefetch, read_bytes, size_of
from longtail.data.records import Records, find_problems, make_splits
from longtail.data.shards import INDEX
from longtail.data.split_names import SPLITS
from longtail.errors import InputError
from longtail.files import whole_file
from longtail.ranges import check_range

MEGABYTE = 10**6


def write_shards(config: DataConfig, folder: Path, megabytes: int = 256) -> list[Path]:
    """Copies the image files of a source into tar files with an index.

    The tar files follow the WebDataset convention, so that its readers also accept them: `N.jpg`
    (the unchanged file) and `N.cls` (the class index), where N counts the images of a split. Their
    order is random, so that sequential readers see the classes mixed. The index, which `longtail
    train FOLDER` reads, is written last.

    Args:
        config: the source; missing splits are made as for training.
        folder: folder to write `train-00000.tar` and so on to.
        megabytes: minimum size of a shard, except for the last of a split.

    Returns: the tar files.
    Raises:
        InputError: when the source has no files or is invalid, or the folder already has shards.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_range("megabytes", megabytes, least=1)
    source = read_source(config)
    if not isinstance(source, Records):
        raise InputError(f"{config.source} is in memory; only image files can be written to shards")
    if any(file_of(path) != path for path in source.paths[:1]):
        raise InputError(f"the images of {config.source} are in shards or one file already")
    if (folder / INDEX).exists():
        raise InputError(f"out must be a folder without shards, {folder} already has some")
    report_problems(source.name, find_problems(source))
    source = make_splits(source, config)
    shards: list[str] = []
    rows = np.empty((len(source.paths), 3), np.int64)  # shard, offset, size
    for split in SPLITS:
        indices = np.flatnonzero(source.splits == split)
        order = np.random.RandomState(config.seed).permutation(indices)
        for number, chunk in enumerate(_chunks(source, order, megabytes * MEGABYTE)):
            shards.append(f"{split}-{number:05d}.tar")
            rows[chunk, 0] = len(shards) - 1
            rows[chunk, 1:] = _write(folder / shards[-1], source, chunk, indices)
    table = pa.table(
        {
            "shard": pa.DictionaryArray.from_arrays(rows[:, 0].astype(np.int32), shards),
            "offset": rows[:, 1],
            "size": rows[:, 2],
            "label": source.labels,
            "split": pa.array(source.splits),
            "index": source.index,
            "path": pa.array(source.paths),
        }
    )
    about = json.dumps({"name": source.name, "class_names": source.class_names})
    with whole_file(folder / INDEX) as partial:
        pq.write_table(table.replace_schema_metadata({"longtail": about}), partial)
    return [folder / shard for shard in shards]


def _chunks(source: Records, order: NDArray[np.int64], least: int) -> Iterator[NDArray[np.int64]]:
    """Rows of each shard of a split."""
    begin = size = 0
    for end, row in enumerate(order.tolist(), 1):
        if end % HELD == 1:
            prefetch(source.paths[next_row] for next_row in order[end - 1 : end - 1 + HELD])
        size += size_of(source.paths[row])
        if size >= least:
            yield order[begin:end]
            begin, size = end, 0
    if begin < len(order):
        yield order[begin:]


def _write(
    shard: Path, source: Records, rows: NDArray[np.int64], indices: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Writes one tar file; returns offset and size of each image in it, (n, 2)."""
    numbers = np.searchsorted(indices, rows).tolist()
    where = []
    with (
        whole_file(shard) as partial,
        tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for number, row in zip(numbers, rows.tolist(), strict=True):
            path = source.paths[row]
            suffix = suffix_of(path)
            content = read_bytes(path)
            where.append((tar.offset + tarfile.BLOCKSIZE, len(content)))  # after its header
            _add(tar, f"{number:09d}{suffix}", content)
            _add(tar, f"{number:09d}.cls", str(source.labels[row]).encode())
    return np.array(where)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(content)
    tar.addfile(about, io.BytesIO(content))

"""A CSV or Parquet table of images."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.data.columns import parquet_schema, read_columns
from longtail.data.config import DataConfig
from longtail.data.embedded import image_column
from longtail.data.missing import find_missing
from longtail.data.parquet import parquet_images
from longtail.data.paths import folder_of, is_url, join, name_of, outside_of
from longtail.data.problems import counted, report_problems
from longtail.data.reading import renew
from longtail.data.records import Records, class_order
from longtail.data.split_names import SPLITS, split_named

Coded = tuple[NDArray[np.int64], list[str]]  # index into the distinct texts, -1 if missing


def table(config: DataConfig) -> Records:
    """A .csv, .tsv or .parquet table with columns for path, label and, if it has one, split.

    Class names are ordered by value if all are whole numbers, else alphabetically; blanks around
    labels are ignored. `index` is the row, from 0. A Parquet file may contain the images
    themselves, see `parquet_images`. The table, its images or both may be at URLs; a table at a URL
    may not name a local file outside of `root`.

    Raises:
        InputError: when a column is absent, or rows are incomplete or contradict each other.
    """
    source, file_name = config.source, name_of(config.source)
    renew(source)
    is_parquet = file_name.lower().endswith(".parquet")
    if is_parquet and image_column(parquet_schema(source), config.path_column) is not None:
        return parquet_images(config)
    wanted = {"path": config.path_column, "label": config.label_column}
    optional = {} if config.split_column else {"split": "split"}
    if config.split_column:
        wanted["split"] = config.split_column
    columns = read_columns(source, wanted, optional)
    paths = [text or "" for text in columns.texts["path"].to_pylist()]
    coded = {name: _coded(text) for name, text in columns.texts.items() if name != "path"}

    problems = []
    missing = {"path": np.array([i for i, path in enumerate(paths) if not path.strip()])}
    missing |= {name: np.flatnonzero(codes < 0) for name, (codes, _) in coded.items()}
    for name, rows in missing.items():
        if len(rows):
            named = list(map(columns.origin, rows.tolist()))
            problems.append(counted(f"rows without a {name}", named))
    labels, texts = coded["label"]
    names = class_order(text.strip() for text in texts)
    if len(names) < len(texts):
        blanks = sorted(repr(text) for text in texts if text != text.strip())
        problems.append(counted("labels that differ only in whitespace", blanks))
    splits = np.full(len(paths), "train", dtype="U5")
    if "split" in coded:
        splits, odd = _splits(*coded["split"])
        if len(odd):
            what = "rows with a split other than train, val and test"
            named = [f"{coded['split'][1][c]!r} ({columns.origin(row)})" for row, c in odd]
            problems.append(counted(what, named))
    if "train" not in splits:
        problems.append("no row has the split train" if paths else "it has no rows")
    top = config.root or folder_of(source)
    found = absolute_paths(top, paths)
    if is_url(source) and (outside := outside_of(top, found)):
        named = [f"{paths[row]} ({columns.origin(row)})" for row in outside]
        problems.append(counted("paths outside of root", named))
    report_problems(source, problems)

    number = {name: c for c, name in enumerate(names)}
    order = np.array([number[text.strip()] for text in texts], dtype=np.int64)
    return Records(
        name=Path(file_name).stem,
        paths=found,
        labels=order[labels],
        splits=splits,
        index=np.arange(len(paths)),
        class_names=names,
        origin=lambda row: f"{file_name}, {columns.origin(row)}",
        check="decode",
    )


def _coded(texts: Any) -> Coded:
    """The distinct texts of a column, and the index of each row's text; -1 if it is blank."""
    encoded = texts.combine_chunks().dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    kept = [text for text in distinct if text.strip()]
    renumber = {text: c for c, text in enumerate(kept)}
    lookup = np.array([*(renumber.get(text, -1) for text in distinct), -1], dtype=np.int64)
    return lookup[codes], kept


def _splits(
    codes: NDArray[np.int64], texts: list[str]
) -> tuple[NDArray[np.str_], list[tuple[int, int]]]:
    """Split of each row; and the rows, with the index of their text, that name no split."""
    named = [split_named(text) or "" for text in texts]
    splits = np.array([*named, ""], dtype="U5")[codes]
    odd = np.flatnonzero((codes >= 0) & ~np.isin(splits, SPLITS))
    return splits, list(zip(odd.tolist(), codes[odd].tolist(), strict=True))


def absolute_paths(top: str, paths: list[str]) -> list[str]:
    """Absolute paths; surrounding blanks and backslashes are kept only if such a file exists.

    At URLs they are never kept.

    Args:
        top: folder or URL that the paths start from.
        paths: paths or URLs.
    """
    top = top if is_url(top) else os.path.abspath(top)

    def absolute(path: str) -> str:
        if is_url(top) or is_url(path.strip()):
            return join(top, path.strip().replace("\\", "/"))
        joined = os.path.join(top, path)
        # Most paths are already normal, and normpath is slow.
        return os.path.normpath(joined) if "//" in joined or "/." in joined else joined

    found = list(map(absolute, paths))
    foreign = "\\" if os.sep == "/" else "/"
    odd = [i for i, path in enumerate(paths) if path != path.strip() or foreign in path]
    odd = [i for i in odd if not is_url(found[i])]
    for i in find_missing([found[row] for row in odd]):
        found[odd[i]] = absolute(paths[odd[i]].strip().replace(foreign, os.sep))
    return found

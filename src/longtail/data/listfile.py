"""Published list files of large long-tailed benchmarks: lines of `path label`."""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longtail.data.config import DataConfig
from longtail.data.problems import counted, report_problems
from longtail.data.records import Records
from longtail.errors import InputError
from longtail.files import read_text


@dataclass(frozen=True)
class Lists:
    """File names of a benchmark.

    Args:
        name: name of the data set.
        splits: list file of each split.
        class_names: file with the classes in order: lines of `id name`, or JSON records with id
            and name.
    """

    name: str
    splits: dict[str, str]
    class_names: str


def imagenet_lt(config: DataConfig) -> Records:
    """ImageNet-LT: 115,846 images of 1,000 classes by its list files, in the root of ImageNet.

    Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019, arXiv 1904.05160.
    """
    return from_lists(
        Lists(
            "imagenet-lt",
            {split: f"ImageNet_LT_{split}.txt" for split in ("train", "val", "test")},
            "ImageNet_LT_classnames.txt",
        ),
        config,
    )


def places_lt(config: DataConfig) -> Records:
    """Places-LT: 62,500 images of 365 classes by its list files, in the root of Places365.

    Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019, arXiv 1904.05160.
    """
    return from_lists(
        Lists(
            "places-lt",
            {split: f"Places_LT_{split}.txt" for split in ("train", "val", "test")},
            "Places_LT_classnames.txt",
        ),
        config,
    )


def inaturalist18(config: DataConfig) -> Records:
    """The iNaturalist 2018 set: 437,513 images of 8,142 classes by list files, in its root.

    All papers test on the published validation list, so it is the test split here.
    """
    return from_lists(
        Lists(
            "inaturalist18",
            {"train": "iNaturalist18_train.txt", "test": "iNaturalist18_val.txt"},
            "inat18_categories.json",
        ),
        config,
    )


def from_lists(lists: Lists, config: DataConfig) -> Records:
    """Rows of a data set by list files.

    By default only the existence of the files is checked; `check="decode"` reads them. `index` is
    the line of an image in the list of its split, from 0.

    Args:
        lists: names of the files, in `config.lists` (default: `config.root`).
        config: `root` is the folder that the paths of the lists start from.

    Raises:
        InputError: when no root is given, or a list is missing, has a line that is not
            `path label`, or names missing files or classes.
    """
    if config.root is None:
        raise InputError(f"root must be given for {lists.name}: the folder of its images")
    folder = Path(config.lists or config.root)
    absent = [name for name in lists.splits.values() if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"{lists.name} needs the list files {', '.join(lists.splits.values())} in {folder}; "
            f"missing: {', '.join(absent)}. Set lists to their folder"
        )
    paths: list[str] = []
    labels: list[int] = []
    counts, problems = {}, []
    for split, name in lists.splits.items():
        found, classes, odd = _read_list(folder / name)
        paths += found
        labels += classes
        counts[split] = len(found)
        if odd:
            problems.append(counted("lines that are not `path label`", odd))
    report_problems(lists.name, problems)
    splits = np.repeat(list(counts), list(counts.values()))
    index = np.concatenate([np.arange(n) for n in counts.values()])

    def origin(row: int) -> str:
        return f"{lists.splits[str(splits[row])]}, line {index[row] + 1}"

    names = _class_names(folder / lists.class_names, max(labels, default=-1) + 1)
    beyond = [f"{y} ({origin(row)})" for row, y in enumerate(labels) if y >= len(names)]
    if beyond:
        what = f"labels beyond the {len(names):,} classes of {lists.class_names}"
        problems.append(counted(what, beyond))
    report_problems(lists.name, problems)
    top = os.path.join(os.path.abspath(config.root), "")
    return Records(
        name=lists.name,
        paths=[top + path for path in paths],
        labels=np.array(labels, dtype=np.int64),
        splits=splits,
        index=index,
        class_names=names,
        origin=origin,
        check="exists",
    )


def _read_list(file: Path) -> tuple[list[str], list[int], list[str]]:
    """Paths and labels of a list, and the lines that have none."""
    paths, labels, odd = [], [], []
    for line, text in enumerate(read_text(file).split("\n"), 1):
        if not text.strip():
            continue
        path, _, label = text.rstrip().rpartition(" ")
        if path and label.isdecimal():
            paths.append(path)
            labels.append(int(label))
        else:
            odd.append(f"'{text}' ({file.name}, line {line})")
    return paths, labels, odd


def _class_names(file: Path, num_classes: int) -> tuple[str, ...]:
    """Names in class order; equal names are told apart by their ids."""
    if not file.is_file():
        return tuple(map(str, range(num_classes)))
    text = read_text(file)
    if file.suffix == ".json":
        try:
            records = sorted(json.loads(text), key=lambda record: int(record["id"]))
            pairs = [(str(record["id"]), str(record["name"])) for record in records]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file} must be a JSON list of records with id and name: {error!r}"
            ) from error
    else:
        lines = [line.split(maxsplit=1) for line in text.splitlines()]
        pairs = [(words[0], words[-1].strip()) for words in lines if words]
    times = Counter(name for _, name in pairs)
    return tuple(name if times[name] == 1 else f"{name} ({key})" for key, name in pairs)

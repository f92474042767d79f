"""Published list files of large long-tailed benchmarks, with lines of `path label`."""

import json
import os
from collections import Counter
from collections.abc import Mapping

import numpy as np

from longtail.data.config import DataConfig
from longtail.data.paths import is_url, join, name_of, outside_of
from longtail.data.problems import counted, report_problems
from longtail.data.reading import is_file, read_text
from longtail.data.records import Records
from longtail.data.split_names import SPLITS
from longtail.errors import InputError


def imagenet_lt(config: DataConfig) -> Records:
    """ImageNet-LT: 115,846 images of 1,000 classes by its list files, in the root of ImageNet.

    Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019, arXiv 1904.05160.
    """
    lists = {split: f"ImageNet_LT_{split}.txt" for split in SPLITS}
    return _from_lists("imagenet-lt", lists, "ImageNet_LT_classnames.txt", config)


def places_lt(config: DataConfig) -> Records:
    """Places-LT: 62,500 images of 365 classes by its list files, in the root of Places365.

    Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019, arXiv 1904.05160.
    """
    lists = {split: f"Places_LT_{split}.txt" for split in SPLITS}
    return _from_lists("places-lt", lists, "Places_LT_classnames.txt", config)


def inaturalist18(config: DataConfig) -> Records:
    """The iNaturalist 2018 set: 437,513 images of 8,142 classes by list files, in its root.

    All papers test on the published validation list, so it is the test split here.
    """
    lists = {"train": "iNaturalist18_train.txt", "test": "iNaturalist18_val.txt"}
    return _from_lists("inaturalist18", lists, "inat18_categories.json", config)


def _from_lists(
    benchmark: str, lists: Mapping[str, str], class_names: str, config: DataConfig
) -> Records:
    """Rows of a data set from list files.

    By default only the existence of the files is checked; `check="decode"` reads them. `index` is
    the line of an image in the list of its split, from 0.

    Args:
        benchmark: name of the data set.
        lists: list file of each split, in `config.lists` (default: `config.root`).
        class_names: file with the classes in order: lines of `id name`, or JSON records with id
            and name.
        config: `root` is the folder that the paths of the lists start from. Both may be URLs; lists
            at a URL may not name a local file outside of `root`.

    Raises:
        InputError: when no root is given, or a list is missing, has a line that is not
            `path label`, or names missing files or classes.
    """
    if config.root is None:
        raise InputError(f"root must be given for {benchmark}: the folder of its images")
    folder = config.lists or config.root
    absent = [name for name in lists.values() if not is_file(join(folder, name))]
    if absent:
        raise InputError(
            f"{benchmark} needs the list files {', '.join(lists.values())} in {folder}; "
            f"missing: {', '.join(absent)}. Set lists to their folder"
        )
    paths: list[str] = []
    labels: list[int] = []
    counts, problems = {}, []
    for split, name in lists.items():
        found, classes, odd = _read_list(join(folder, name))
        paths += found
        labels += classes
        counts[split] = len(found)
        if odd:
            problems.append(counted("lines that are not `path label`", odd))
    report_problems(benchmark, problems)
    splits = np.repeat(list(counts), list(counts.values()))
    index = np.concatenate([np.arange(n) for n in counts.values()])

    def origin(row: int) -> str:
        return f"{lists[str(splits[row])]}, line {index[row] + 1}"

    names = _class_names(join(folder, class_names), max(labels, default=-1) + 1)
    beyond = [f"{y} ({origin(row)})" for row, y in enumerate(labels) if y >= len(names)]
    if beyond:
        what = f"labels beyond the {len(names):,} classes of {class_names}"
        problems.append(counted(what, beyond))
    top = config.root if is_url(config.root) else os.path.join(os.path.abspath(config.root), "")
    if is_url(top):
        paths = [join(top, path) for path in paths]
    else:
        paths = [path if is_url(path) else top + path for path in paths]
    if is_url(folder) and (outside := outside_of(top, paths)):
        named = [f"{paths[row]} ({origin(row)})" for row in outside]
        problems.append(counted("paths outside of root", named))
    report_problems(benchmark, problems)
    return Records(
        name=benchmark,
        paths=paths,
        labels=np.array(labels, dtype=np.int64),
        splits=splits,
        index=index,
        class_names=names,
        origin=origin,
        check="exists",
    )


def _read_list(file: str) -> tuple[list[str], list[int], list[str]]:
    """Paths and labels in a list, and the lines without them."""
    paths, labels, odd = [], [], []
    for line, text in enumerate(read_text(file).split("\n"), 1):
        if not text.strip():
            continue
        path, _, label = text.rstrip().rpartition(" ")
        if path and label.isdecimal():
            paths.append(path)
            labels.append(int(label))
        else:
            odd.append(f"'{text}' ({name_of(file)}, line {line})")
    return paths, labels, odd


def _class_names(file: str, num_classes: int) -> tuple[str, ...]:
    """Names in class order; equal names are distinguished by their ids."""
    if not is_file(file):
        return tuple(map(str, range(num_classes)))
    text = read_text(file)
    if file.endswith(".json"):
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

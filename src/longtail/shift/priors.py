"""Reads a prior: a ClassPrior, a vector, a keyword or a file."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longtail.arrays import as_tensor, in_class_order
from longtail.errors import InputError
from longtail.files import read_text
from longtail.prior import ClassPrior

SUM_TOLERANCE = 1e-6

Prior = ClassPrior | Tensor | NDArray[np.generic] | Sequence[float]


def probabilities(value: Prior, name: str, num_classes: int | None = None) -> Tensor:
    """Class probabilities of a prior, checked.

    Args:
        value: a ClassPrior or a vector (num_classes,) of probabilities; zeros are allowed. A pandas
            Series is read by its index, the class indices.
        name: name in error messages, for instance `target of adjust`.
        num_classes: required length. Default: any.
    Returns: (num_classes,), float64, on the CPU, exactly as given; a copy.
    Raises:
        ValueError: when an entry is negative or not a number, the sum differs from 1 by more than
            1e-6, or the length is wrong.

    Examples:
        >>> probabilities(ClassPrior([3, 1]), "target").tolist()
        [0.75, 0.25]
    """
    if isinstance(value, str):
        raise InputError(
            f"{name} must be a ClassPrior or a vector of probabilities, got {value!r}; "
            f"resolve_prior turns a word or a file into one"
        )
    if isinstance(value, ClassPrior):
        vector = value.probabilities.clone()
    else:
        vector = as_tensor(in_class_order(value, name), name).to("cpu", torch.float64, copy=True)
    if vector.ndim != 1 or len(vector) == 0:
        raise InputError(
            f"{name} must be a non-empty vector (num_classes,), got shape {tuple(vector.shape)}"
        )
    if num_classes is not None and len(vector) != num_classes:
        raise InputError(f"{name} must have {num_classes} classes, got {len(vector)}")
    wrong = (~(torch.isfinite(vector) & (vector >= 0))).nonzero().flatten().tolist()
    if wrong:
        raise InputError(
            f"{name} must hold probabilities, finite and >= 0, got {vector[wrong[0]].item()} "
            f"for class {wrong[0]}"
        )
    total = math.fsum(vector.tolist())
    if abs(total - 1) > SUM_TOLERANCE:
        raise InputError(f"{name} must sum to 1 within {SUM_TOLERANCE:g}, got {total:.9g}")
    return vector


def resolve_prior(
    value: Prior | str | Path,
    source: ClassPrior | None,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> Tensor:
    """Class probabilities from a word, a file, a ClassPrior or a vector.

    Args:
        value: `uniform`, `source`, the path of a file in a format of `read_prior`, or a prior.
        source: the training prior, needed for `source` alone.
        num_classes: the length that the result must have.
        class_names: (num_classes,), names that a file may use instead of the order.
    Returns: (num_classes,), float64.
    Raises: ValueError: when the word is unknown, the file cannot be read, or the prior is not one.

    Examples:
        >>> resolve_prior("uniform", None, 4).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    if not isinstance(value, (str, Path)):
        return probabilities(value, "prior", num_classes)
    if value == "uniform":
        return torch.full((num_classes,), 1 / num_classes, dtype=torch.float64)
    if value == "source":
        if source is None:
            raise InputError("prior 'source' needs the counts of the training set, got None")
        return probabilities(source, "prior 'source'", num_classes)
    if not Path(value).is_file():
        raise InputError(f"prior must be 'uniform', 'source' or a file, got {str(value)!r}")
    return probabilities(read_prior(value, class_names), f"prior in {value}", num_classes)


def expressed_prior(value: object, source: ClassPrior) -> Tensor:
    """Class probabilities that the logits of a model express; never read from a file.

    Args:
        value: `source`, `uniform` or (C,) probabilities, as a method or a model file states it.
        source: the training prior.
    Returns: (C,), float64.
    Raises: InputError: for anything else; a path is not opened.

    Examples:
        >>> expressed_prior("source", ClassPrior([3, 1])).tolist()
        [0.75, 0.25]
    """
    if isinstance(value, str | Path) and value not in ("source", "uniform"):
        raise InputError(
            f"expresses must be 'source', 'uniform' or {source.num_classes} probabilities, "
            f"got {str(value)!r}"
        )
    prior: Any = value
    return resolve_prior(prior, source, source.num_classes)


def read_prior(path: str | Path, class_names: Sequence[str] | None = None) -> list[float]:
    """Reads probabilities from a file, without checking that they are a prior.

    JSON (`.json`): a list, or an object of name to probability. Anything else is CSV, one class
    per line: `probability` or `name,probability`; blank lines are skipped, and so is a header, a
    first line whose last column has no digit. Lines that start with `#` are comments, unless they
    start with the name of a class, which may also be quoted. Names are put in the order of
    `class_names` if given; otherwise the lines are the classes in order.

    Raises: ValueError: names the file and the line.
    """
    path = Path(path)
    known = frozenset(class_names or ())
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _text_rows(path, known)
    named = [name is not None for _, name, _ in rows]
    if class_names is None or (rows and not any(named)):
        return [value for _, _, value in rows]
    if not all(named):
        raise InputError(f"{rows[named.index(False)][0]}: either every line has a name or none has")
    index = {name: c for c, name in enumerate(class_names)}
    found: dict[int, float] = {}
    for where, name, value in rows:
        if name not in index:
            raise InputError(f"{where}: class {name!r} is not one of the {len(index)} class names")
        if index[name] in found:
            raise InputError(f"{where}: class {name!r} is listed twice")
        found[index[name]] = value
    missing = [name for name, c in index.items() if c not in found]
    if missing:
        raise InputError(f"{path}: no probability for {len(missing)} classes, first {missing[0]!r}")
    return [found[c] for c in range(len(index))]


Row = tuple[str, str | None, float]


def _json_rows(path: Path) -> list[Row]:
    try:
        # Pairs rather than a dict, in which the last of two equal names would win.
        data = json.loads(read_text(path), object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON: {error}") from error
    pairs: list[tuple[str | None, Any]]
    pairs = list(data) if isinstance(data, tuple) else [(None, v) for v in _as_list(data)]
    for at, (_, value) in enumerate(pairs):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{path}: entry {at} must be a number, got {value!r}")
    return [(f"{path}: entry {at}", name, _float(v)) for at, (name, v) in enumerate(pairs)]


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # of an int; the check of probabilities names its class
        return math.inf


def _as_list(data: object) -> list[object]:
    return data if isinstance(data, list) else [data]


def _text_rows(path: Path, known: frozenset[str]) -> list[Row]:
    lines = list(io.StringIO(read_text(path)))
    reader = csv.reader(lines)
    rows: list[Row] = []
    begin, in_front = 0, True  # in_front: a header may come
    try:
        for cells in reader:
            line, begin = lines[begin], reader.line_num
            name = _known_name(cells[0], known) if len(cells) == 2 else None
            is_comment = line.lstrip().startswith("#") and name not in known
            if is_comment or not any(cell.strip() for cell in cells):
                continue
            where = f"{path}:{begin}"
            is_header = in_front and len(cells) <= 2 and not re.search(r"\d", cells[-1])
            in_front = False
            if is_header and name not in known and _number(cells[-1]) is None:
                continue
            rows.append((where, name, _probability(cells, where)))
    except csv.Error as error:
        raise InputError(f"{path}:{begin + 1}: {error}") from error
    return rows


def _known_name(cell: str, known: frozenset[str]) -> str:
    """The name of a class; surrounding blanks are kept if a class has such a name."""
    return cell if cell in known else cell.strip()


def _probability(cells: Sequence[str], where: str) -> float:
    """The number in the last column."""
    if len(cells) > 2:
        raise InputError(f"{where}: expected one or two columns, got {len(cells)}")
    value = _number(cells[-1])
    if value is None:
        got = ",".join(cells)
        raise InputError(f"{where}: expected `probability` or `name,probability`, got {got!r}")
    return value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

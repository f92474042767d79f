"""Test sets with a shifted class prior, drawn from a balanced one: LADE's, Dirichlet or listed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from longtail.arrays import as_indices, as_tensor
from longtail.errors import InputError
from longtail.files import read_text, write_text
from longtail.prior import ClassPrior

Direction = Literal["forward", "backward"]
Indices = NDArray[np.int64]

# The eleven columns of the table, from the training prior on the left to its reverse on the right.
COLUMNS: tuple[tuple[Direction, float], ...] = (
    *(("forward", ratio) for ratio in (50.0, 25.0, 10.0, 5.0, 2.0, 1.0)),
    *(("backward", ratio) for ratio in (2.0, 5.0, 10.0, 25.0, 50.0)),
)


def set_name(direction: Direction, ratio: float) -> str:
    """Short name of a shifted test set: `F50`, `uniform` or `B2`."""
    return "uniform" if ratio == 1 else f"{direction[0].upper()}{ratio:g}"


def shifted_test_sets(
    labels: ArrayLike | Tensor,
    train_counts: ClassPrior | ArrayLike | Tensor,
    ratio: float,
    direction: Direction = "forward",
) -> Indices:
    """Indices of a test set that is long-tailed in the order of the training set or in reverse.

    Hong et al., Disentangling label distribution for long-tailed visual recognition (LADE), CVPR
    2021, arXiv 2012.00321, section 4.1. The class of rank r among C, counted by training samples
    from the largest and with ties in class order, keeps its first
    int(n_max * (1 / ratio)^(r / (C - 1))) samples in file order; backward counts the ranks from the
    other end. n_max is the number of test samples per class, or the smallest if the test set is not
    quite balanced. A small n_max with a large ratio leaves classes out.

    Args:
        labels: (samples,), class index of each test sample, in file order.
        train_counts: (num_classes,), a ClassPrior, or training samples of each class.
        ratio: largest class over smallest, 1 or more; 1 is the balanced set.
        direction: `forward` is imbalanced in the order of training, `backward` in reverse.
    Returns: int64, indices into `labels`, ascending.
    Raises: ValueError: when a class has no test sample, or an argument is out of range.

    Examples:
        >>> shifted_test_sets([0, 0, 1, 1, 1, 0], [10, 100], ratio=3, direction="forward").tolist()
        [0, 2, 3, 4]
    """
    counts = train_counts.counts if isinstance(train_counts, ClassPrior) else train_counts
    train = np.asarray(counts)
    truth = class_indices(labels, len(train))
    if not ratio >= 1 or not np.isfinite(ratio):
        raise InputError(f"ratio of shifted_test_sets must be >= 1 and finite, got {ratio}")
    if direction not in get_args(Direction):
        raise InputError(
            f"direction of shifted_test_sets must be one of {get_args(Direction)}, "
            f"got {direction!r}"
        )
    per_class = np.bincount(truth, minlength=len(train))
    if (per_class == 0).any():
        raise InputError(
            f"labels of shifted_test_sets must have a sample of every class, got none of class "
            f"{int((per_class == 0).argmax())}"
        )
    rank = np.empty(len(train), dtype=np.int64)
    rank[np.argsort(-train, kind="stable")] = np.arange(len(train))
    if direction == "backward":
        rank = len(train) - 1 - rank
    most, last = int(per_class.min()), max(len(train) - 1, 1)
    keep = np.array([int(most * (1 / ratio) ** (int(r) / last)) for r in rank])
    return np.flatnonzero(_occurrence(truth) < keep[truth]).astype(np.int64)


def dirichlet_test_set(labels: ArrayLike | Tensor, alpha: float, size: int, seed: int) -> Indices:
    """Indices of a test set whose class prior is drawn from a symmetric Dirichlet distribution.

    First the prior is drawn, then the class of each sample, then the samples: those of a class in a
    random order, which is repeated if the class has too few.

    Args:
        labels: (samples,), class index of each test sample.
        alpha: concentration, above 0; small is far from balanced.
        size: number of samples to draw, 1 or more.
        seed: seed of NumPy's default generator.
    Returns: int64 (size,), indices into `labels`, ascending; an index may appear several times.
    Raises: ValueError: when a class has no sample, or an argument is out of range.

    Examples:
        >>> len(dirichlet_test_set([0, 0, 1, 1], alpha=1.0, size=3, seed=0))
        3
    """
    if not (alpha > 0 and np.isfinite(alpha)) or size < 1:
        raise InputError(
            f"alpha and size of dirichlet_test_set must be above 0, got {alpha} and {size}"
        )
    truth = class_indices(labels, None)
    num_classes = int(truth.max()) + 1
    generator = np.random.default_rng(seed)
    prior = generator.dirichlet(np.full(num_classes, alpha))
    wanted = generator.multinomial(size, prior / prior.sum())
    chosen = []
    for c, count in enumerate(wanted):
        mine = np.flatnonzero(truth == c)
        if len(mine) == 0:
            raise InputError(
                f"labels of dirichlet_test_set must contain every class, got no sample of class {c}"
            )
        chosen.append(np.resize(generator.permutation(mine), count))
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def write_test_list(
    path: str | Path, indices: ArrayLike, names: Sequence[str] | None = None
) -> None:
    """Writes a test set as a list file: one index per line, or one name if `names` are given.

    Raises: ValueError: for a name that `read_test_list` could not read back.
    """
    rows = np.asarray(indices).tolist()
    lines = [str(row) if names is None else names[row] for row in rows]
    times = Counter(names or ())
    for line in lines if names is not None else ():
        if times[line] > 1 or line.strip() != line or len(line.splitlines()) != 1:
            raise InputError(
                "names of write_test_list must be those of one sample each, without line breaks "
                f"and without blanks at the ends, got {line!r}"
            )
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_test_list(path: str | Path, samples: int, names: Sequence[str] | None = None) -> Indices:
    """Indices of the test set in a list file.

    Args:
        path: one sample per line: its index in the predictions, or its name, which a label may
            follow as in the lists of ImageNet-LT (`val/n01/x.JPEG 0`; the label is not used). Empty
            lines are skipped, and lines that start with `#` unless that is a name.
        samples: number of predictions.
        names: (samples,), name of each, for example the `path` column.
    Returns: int64, in the order of the file.
    Raises: ValueError: names the file and the line.
    """
    index_of = {name: index for index, name in enumerate(names or ())}
    times = Counter(names or ())
    found = []
    for number, raw in enumerate(read_text(path).splitlines(), start=1):
        line = raw.strip()
        if not line or (line.startswith("#") and line not in index_of):
            continue
        name = line if line in index_of else line.rsplit(maxsplit=1)[0]
        if times[name] > 1:
            raise InputError(f"{path}:{number}: {name!r} is the name of {times[name]} samples")
        if name in index_of:
            found.append(index_of[name])
        elif line.isdecimal() and int(line) < samples:
            found.append(int(line))
        else:
            known = f"an index below {samples}" + (" or a known name" if names else "")
            raise InputError(f"{path}:{number}: expected {known}, got {line!r}")
    if not found:
        raise InputError(f"{path}: contains no samples")
    return np.array(found, dtype=np.int64)


def halves(labels: ArrayLike | Tensor) -> tuple[Indices, Indices]:
    """Splits a set in two halves: indices of the even and of the odd samples of each class."""
    even = _occurrence(class_indices(labels, None)) % 2 == 0
    return np.flatnonzero(even).astype(np.int64), np.flatnonzero(~even).astype(np.int64)


def class_indices(labels: ArrayLike | Tensor, num_classes: int | None) -> Indices:
    """Labels of a test set as int64, checked; `num_classes` is the limit, if given."""
    truth = as_tensor(labels, "labels of a test set").cpu()
    if truth.ndim != 1 or len(truth) == 0:
        raise InputError(
            f"labels of a test set must be a non-empty vector, got shape {tuple(truth.shape)}"
        )
    return as_indices(truth, "labels of a test set", num_classes).numpy()


def _occurrence(labels: Indices) -> Indices:
    """Number of earlier samples of the same class, for each sample."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    earlier = np.empty(len(labels), dtype=np.int64)
    earlier[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return earlier


def prior_of(labels: ArrayLike | Tensor, num_classes: int) -> Tensor:
    """Class frequencies of labels, (num_classes,), float64; 0 for a class that does not occur."""
    counts = np.bincount(class_indices(labels, num_classes), minlength=num_classes)
    return torch.from_numpy(counts / counts.sum())

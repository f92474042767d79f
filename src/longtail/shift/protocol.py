"""Test sets with a shifted class mix, drawn from a balanced one: LADE's, Dirichlet's, a list's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from longtail.errors import InputError
from longtail.prior import ClassPrior

Direction = Literal["forward", "backward"]
Indices = NDArray[np.int64]

# The eleven columns of the table: the mix of training at the left, its reverse at the right.
COLUMNS: tuple[tuple[Direction, float], ...] = (
    *(("forward", ratio) for ratio in (50.0, 25.0, 10.0, 5.0, 2.0, 1.0)),
    *(("backward", ratio) for ratio in (2.0, 5.0, 10.0, 25.0, 50.0)),
)


def shifted_test_sets(
    labels: ArrayLike | Tensor,
    train_counts: ClassPrior | ArrayLike | Tensor,
    ratio: float,
    direction: Direction = "forward",
) -> Indices:
    """Places of a test set whose class mix is long-tailed, with the training set or against it.

    Hong et al., Disentangling label distribution for long-tailed visual recognition (LADE), CVPR
    2021, arXiv 2012.00321, section 4.1. The class of rank r among C, counted by training samples
    from the largest and with ties in class order, keeps its first
    int(n_max * (1 / ratio)^(r / (C - 1))) samples in file order; backward counts the ranks from the
    other end. n_max is the number of test samples a class; of a test set that is not quite
    balanced, the least. A small n_max at a large ratio leaves classes out.

    Args:
        labels: (samples,), class index of each test sample, in file order.
        train_counts: (num_classes,), a ClassPrior or training samples of each class.
        ratio: largest class over smallest, 1 or more; 1 is the balanced set.
        direction: `forward` leans as training does, `backward` the other way.
    Returns: int64, places in `labels`, ascending.
    Raises: ValueError: when a class has no test sample, or an argument is out of range.

    Example:
        >>> shifted_test_sets([0, 0, 1, 1, 1, 0], [10, 100], ratio=3, direction="forward").tolist()
        [0, 2, 3, 4]
    """
    counts = train_counts.counts if isinstance(train_counts, ClassPrior) else train_counts
    train = np.asarray(counts)
    truth = _labels(labels, len(train))
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


def dirichlet_test_set(
    labels: ArrayLike | Tensor, alpha: float, size: int, seed: int, num_classes: int | None = None
) -> Indices:
    """Places of a test set whose class mix is drawn from a symmetric Dirichlet distribution.

    The mix is drawn, then the class of each sample, then the samples: of a class each in turn, in a
    random order, and again from the start where the class has fewer than are wanted.

    Args:
        labels: (samples,), class index of each test sample.
        alpha: concentration, above 0; small is far from balanced.
        size: number of samples to draw, 1 or more.
        seed: of NumPy's default generator.
        num_classes: the largest label plus one when not given.
    Returns: int64 (size,), places in `labels`, ascending; a place may come several times.
    Raises: ValueError: when a class has no sample, or an argument is out of range.

    Example:
        >>> len(dirichlet_test_set([0, 0, 1, 1], alpha=1.0, size=3, seed=0))
        3
    """
    if not (alpha > 0 and np.isfinite(alpha)) or size < 1:
        raise InputError(
            f"alpha and size of dirichlet_test_set must be above 0, got {alpha} and {size}"
        )
    truth = _labels(labels, num_classes)
    num_classes = num_classes or int(truth.max()) + 1
    generator = np.random.default_rng(seed)
    mix = generator.dirichlet(np.full(num_classes, alpha))
    wanted = generator.multinomial(size, mix / mix.sum())
    chosen = []
    for c, count in enumerate(wanted):
        places = np.flatnonzero(truth == c)
        if len(places) == 0:
            raise InputError(f"labels of dirichlet_test_set must have every class, got no {c}")
        chosen.append(np.resize(generator.permutation(places), count))
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def write_test_list(
    path: str | Path, indices: ArrayLike, names: Sequence[str] | None = None
) -> None:
    """Writes a test set as a list file: one place a line, or one name where `names` are given."""
    places = np.asarray(indices).tolist()
    lines = [str(place) if names is None else names[place] for place in places]
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_test_list(path: str | Path, samples: int, names: Sequence[str] | None = None) -> Indices:
    """Places of the test set in a list file.

    Args:
        path: one sample a line: its place in the predictions, or its name, which a label may follow
            as in the lists of ImageNet-LT (`val/n01/x.JPEG 0`; the label is not used). Empty lines
            and lines that start with `#` are skipped.
        samples: number of predictions.
        names: (samples,), name of each, for instance the `path` column.
    Returns: int64, in the order of the file.
    Raises: ValueError: names the file and the line.
    """
    place_of = {name: place for place, name in enumerate(names or ())}
    found = []
    for number, raw in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name = line if line in place_of else line.rsplit(maxsplit=1)[0]
        if name in place_of:
            found.append(place_of[name])
        elif line.isdecimal() and int(line) < samples:
            found.append(int(line))
        else:
            known = f"a place below {samples}" + (" or a known name" if names else "")
            raise InputError(f"{path}:{number}: expected {known}, got {line!r}")
    if not found:
        raise InputError(f"{path}: lists no sample")
    return np.array(found, dtype=np.int64)


def halves(labels: ArrayLike | Tensor) -> tuple[Indices, Indices]:
    """Two halves of a set, class by class: places of the even and of the odd samples of each."""
    even = _occurrence(_labels(labels, None)) % 2 == 0
    return np.flatnonzero(even).astype(np.int64), np.flatnonzero(~even).astype(np.int64)


def _labels(labels: ArrayLike | Tensor, num_classes: int | None) -> Indices:
    truth = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if truth.ndim != 1 or len(truth) == 0 or not np.issubdtype(truth.dtype, np.integer):
        raise InputError(
            f"labels of a test set must be a non-empty vector of class indices, "
            f"got {truth.dtype} of shape {truth.shape}"
        )
    limit = num_classes if num_classes is not None else int(truth.max()) + 1
    if truth.min() < 0 or truth.max() >= limit:
        raise InputError(
            f"labels of a test set must lie in [0, {limit}), got {truth.min()} to {truth.max()}"
        )
    return truth.astype(np.int64)


def _occurrence(labels: Indices) -> Indices:
    """How many samples of the same class come before each."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


def mix_of(labels: ArrayLike | Tensor, num_classes: int) -> Tensor:
    """Class frequencies of labels, (num_classes,), float64; 0 for a class that does not occur."""
    counts = np.bincount(_labels(labels, num_classes), minlength=num_classes)
    return torch.from_numpy(counts / counts.sum())

"""Long-tailed subsets of balanced data sets."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.arrays import as_indices, as_tensor
from longtail.errors import InputError
from longtail.ranges import MAX_COUNT, check_range

ImbalanceType = Literal["exponential", "step", "pareto"]
PARETO_POWER = 6  # of ImageNet-LT and Places-LT


def long_tailed_counts(
    num_classes: int, n_max: int, imbalance: float, imbalance_type: ImbalanceType = "exponential"
) -> Tensor:
    """Class counts from `n_max` for class 0 down to `n_max / imbalance` for the last class.

    `exponential` and `step` follow Cao et al., Learning Imbalanced Datasets with Label-
    Distribution-Aware Margin Loss, NeurIPS 2019, arXiv 1906.07413:
    n_c = int(n_max * imbalance^(-c / (C - 1))); with `step`, the first half of the classes keeps
    `n_max` and the other half `n_max / imbalance` images.
    `pareto` is a power law, n_c = int(n_max * x_c^-6) with x_c evenly spaced from 1 to
    imbalance^(1/6); the power is that of Liu et al., Large-Scale Long-Tailed Recognition in an
    Open World, CVPR 2019, arXiv 1904.05160, who draw from it at random.

    Args:
        num_classes: C, 2 or more.
        n_max: images of the largest class.
        imbalance: largest over smallest count, 1 or more.
        imbalance_type: shape of the tail.

    Returns: (num_classes,) int64.

    Raises:
        InputError: when an argument is out of range, or a class would have no image.

    Examples:
        >>> long_tailed_counts(10, 5000, 100).tolist()
        [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
        >>> long_tailed_counts(4, 100, 20, "step").tolist()
        [100, 100, 5, 5]
    """
    check_range("num_classes of a long tail", num_classes, least=2, most=MAX_COUNT, whole=True)
    check_range("n_max of a long tail", n_max, least=1, whole=True)
    check_range("imbalance", imbalance, least=1)
    num_classes, n_max, imbalance = int(num_classes), int(n_max), float(imbalance)
    if imbalance_type == "exponential":
        # The order of operations is that of the published code: int() depends on it.
        rho = 1 / imbalance
        counts = [int(n_max * rho ** (c / (num_classes - 1))) for c in range(num_classes)]
    elif imbalance_type == "step":
        head = num_classes // 2
        counts = [n_max] * head + [int(n_max / imbalance)] * (num_classes - head)
    elif imbalance_type == "pareto":
        x = np.linspace(1.0, imbalance ** (1 / PARETO_POWER), num_classes)
        # The last count is whole in exact arithmetic wherever n_max / imbalance is.
        counts = [int(n + 1e-9) for n in n_max * x**-PARETO_POWER]
    else:
        raise InputError(
            f"imbalance_type must be exponential, step or pareto, got {imbalance_type!r}"
        )
    if min(counts) < 1:
        raise InputError(
            f"imbalance must be at most the {n_max} images of the largest class, or class "
            f"{counts.index(0)} has no image; got {imbalance:g}"
        )
    return torch.tensor(counts)


def long_tailed_subset(
    labels: ArrayLike | Tensor, counts: Sequence[int] | Tensor, seed: int = 0
) -> Tensor:
    """Chooses the images of a subset with the given class counts.

    NumPy's legacy generator, whose stream is the same in all versions, shuffles the indices of each
    class in class order; the first n_c of them are kept. With seed 0 on CIFAR's training labels,
    this is the subset of the long-tailed benchmarks.

    Args:
        labels: (N,), class index of each image.
        counts: (C,), number of images to keep of each class.
        seed: seed of the generator.

    Returns: (sum of counts,) int64, indices into `labels`, grouped by class.

    Raises:
        InputError: when a class has too few images.

    Examples:
        >>> long_tailed_subset([0, 1, 0, 0, 1], [2, 1]).tolist()
        [3, 2, 1]
    """
    name = "labels of long_tailed_subset"
    targets = as_indices(as_tensor(labels, name).cpu(), name).numpy()
    check_range("seed", seed, least=0, below=2**32, whole=True)
    generator = np.random.RandomState(int(seed))
    name = "counts of long_tailed_subset"
    wanted = as_indices(as_tensor(counts, name), name)
    if targets.ndim != 1 or wanted.ndim != 1 or not len(wanted) or int(wanted.min()) < 0:
        raise InputError(
            "labels and counts of long_tailed_subset must be (N,) and (C,), counts 0 or more, "
            f"got {tuple(targets.shape)} and {wanted.tolist()}"
        )
    kept = []
    for c, count in enumerate(wanted.tolist()):
        indices = np.flatnonzero(targets == c)
        if len(indices) < count:
            raise InputError(f"counts of class {c} must be at most {len(indices)}, got {count}")
        generator.shuffle(indices)
        kept.append(indices[:count])
    return torch.from_numpy(np.concatenate(kept))

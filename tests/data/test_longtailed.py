import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from longtail.data import long_tailed_counts, long_tailed_subset

# CIFAR-100's training labels in the original order, and the SHA-256 of the published subsets'
# indices, as little-endian int64.
LABELS = np.load(Path(__file__).parent / "cifar100_labels.npz")["labels"]
SUBSETS = {
    10: (19_573, "b4fbf1bf0a7f33381467493f50b953ce21b03a2b6d45b0d5e8da5d95d9ffd736"),
    50: (12_608, "561fa940cc7d3551d441643e310c7e439bf84f86b7863a3f7364963522d2984a"),
    100: (10_847, "e0d58a4d2700c46062da852554e5d185bbee74d3c612b052ea2a839bdadf939e"),
}


@pytest.mark.parametrize("imbalance", SUBSETS)
def test_cifar100_subset_is_the_benchmarks(imbalance):
    total, digest = SUBSETS[imbalance]
    indices = long_tailed_subset(LABELS, long_tailed_counts(100, 500, imbalance))
    assert len(indices) == total
    assert hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest() == digest


@pytest.mark.parametrize(("imbalance", "total"), [(10, 20_431), (50, 13_996), (100, 12_406)])
def test_cifar10_counts_are_the_benchmarks(imbalance, total):
    assert long_tailed_counts(10, 5000, imbalance).sum() == total


@pytest.mark.parametrize("kind", ["exponential", "step", "pareto"])
@pytest.mark.parametrize("imbalance", [1, 10, 100])
def test_counts_fall_from_n_max_by_the_imbalance(kind, imbalance):
    counts = long_tailed_counts(20, 1000, imbalance, kind)
    assert counts[0] == 1000
    assert counts[-1] == 1000 // imbalance
    assert (counts.diff() <= 0).all()


def test_pareto_is_steeper_at_the_head_than_exponential():
    pareto = long_tailed_counts(100, 1280, 256, "pareto")
    assert (pareto <= long_tailed_counts(100, 1280, 256)).all()
    assert pareto[10] < 0.5 * 1280


def test_subset_follows_the_seed():
    labels = torch.arange(5).repeat(40)
    one, same, other = (long_tailed_subset(labels, [9, 7, 5, 3, 1], s) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.bincount(labels[one]).tolist() == [9, 7, 5, 3, 1]
    assert len(one.unique()) == 25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 10, 2), r"num_classes of a long tail must be in \[2, \d+\], got 1"),
        ((5, 10, 0.5), "imbalance must be >= 1, got 0.5"),
        ((5, 10, float("nan")), "imbalance must be >= 1 and finite, got nan"),
        ((5, 10, 20), "or class 4 has no image"),
        ((5, 10, 2, "linear"), "imbalance_type must be exponential, step or pareto, got 'linear'"),
    ],
)
def test_counts_name_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        long_tailed_counts(*arguments)


def test_subset_needs_enough_images():
    with pytest.raises(ValueError, match="counts of class 1 must be at most 1, got 2"):
        long_tailed_subset([0, 0, 1], [1, 2])

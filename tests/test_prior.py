import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtail import ClassPrior


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=30))
def test_log_prior_is_that_of_the_shares(counts: list[int]) -> None:
    prior = ClassPrior(counts)
    expected = [math.log(n / sum(counts)) for n in counts]
    torch.testing.assert_close(prior.log_prior, torch.tensor(expected, dtype=torch.float64))
    assert prior.imbalance == pytest.approx(max(counts) / min(counts))
    assert prior.probabilities.sum().item() == pytest.approx(1)
    groups = prior.groups()
    assert sorted(torch.cat(list(groups.values())).tolist()) == list(range(len(counts)))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_from_labels_counts(kind: type) -> None:
    prior = ClassPrior.from_labels(kind([2, 0, 1, 2, 2]))
    assert prior.counts.tolist() == [1, 1, 3]
    assert prior == ClassPrior([1, 1, 3])


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.uint64, np.float16])
def test_counts_of_any_numbers(kind: type) -> None:
    assert ClassPrior(np.array([3, 1], kind)).counts.tolist() == [3, 1]
    assert ClassPrior(torch.tensor([3, 1], dtype=torch.bfloat16)).counts.tolist() == [3, 1]


def test_groups_at_their_borders() -> None:
    groups = ClassPrior([101, 100, 20, 19]).groups()
    assert {k: v.tolist() for k, v in groups.items()} == {"many": [0], "medium": [1, 2], "few": [3]}


def test_fractional_masses_stay() -> None:
    assert ClassPrior([0.5, 1.5]).counts.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 0, 1], r"above zero for every class, got \[0\] for class \[1\]"),
        ([3, -1], r"above zero.*class \[1\]"),
        ([], "non-empty"),
        ([[1, 2]], r"shape \(1, 2\)"),
        ([1.0, float("nan")], "finite"),
    ],
)
def test_impossible_counts(counts: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassPrior(counts)


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        ([0, 1, 3], None, r"class \[2\]"),
        ([0, 1], 3, r"class \[2\]"),
        ([0, 5], 2, r"\[0, 2\), got \[5\]"),
        ([-1, 0], None, r"got \[-1\]"),
        ([0.5], None, "whole"),
        ([], None, "non-empty"),
    ],
)
def test_impossible_labels(labels: list, num_classes: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassPrior.from_labels(labels, num_classes)

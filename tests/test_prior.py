import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtail import ClassPrior
from longtail.shift.priors import probabilities


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


def test_counts_reversed_swapped_and_too_large_for_whole_numbers() -> None:
    assert ClassPrior(np.sort([5, 500, 50])[::-1]).counts.tolist() == [500, 50, 5]
    assert ClassPrior(np.array([3, 1], ">i8")).counts.tolist() == [3, 1]
    assert ClassPrior.from_labels(np.array([0, 0, 1])[::-1]).counts.tolist() == [2, 1]
    assert ClassPrior([1e19, 1.0]).counts.tolist() == [1e19, 1.0]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_counts_that_go_on_leave_the_prior_alone(kind: type) -> None:
    counts = kind([50, 5])
    prior = ClassPrior(counts)
    before = hash(prior)
    counts += 100
    assert prior.counts.tolist() == [50, 5]
    assert hash(prior) == before


def test_words_are_no_counts() -> None:
    with pytest.raises(ValueError, match=r"labels of ClassPrior must be numbers, got .*'cat'"):
        ClassPrior.from_labels(["cat", "dog"])
    with pytest.raises(
        ValueError, match="counts of ClassPrior must be finite, got nan for class 1"
    ):
        ClassPrior([1.0, math.nan])


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


def test_a_series_is_in_the_order_of_its_classes() -> None:
    labels = pd.Series([0] * 5 + [1] * 50 + [2] * 20)
    assert ClassPrior(labels.value_counts()).counts.tolist() == [5, 50, 20]
    shares = labels.value_counts(normalize=True)
    assert probabilities(shares, "prior").tolist() == [5 / 75, 50 / 75, 20 / 75]
    assert ClassPrior(pd.Series([3, 1])).counts.tolist() == [3, 1]
    shuffled = labels.sample(frac=1, random_state=0)
    assert ClassPrior.from_labels(shuffled).counts.tolist() == [5, 50, 20]
    for index in (["b", "a"], [1, 2]):
        with pytest.raises(ValueError, match=r"index of a Series must be 0 to 1, got .*to_numpy"):
            ClassPrior(pd.Series([3, 1], index=index))


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        ([0, 1, 3], None, r"class \[2\]"),
        ([0, 1], 3, r"class \[2\]"),
        ([0, 5], 2, r"\[0, 2\), got 5 in row 1"),
        ([-1, 0], None, "must be 0 or more, got -1 in row 0"),
        ([0, float("inf")], None, "whole class indices, got inf"),
        ([0.5], None, "whole"),
        ([], None, "non-empty"),
    ],
)
def test_impossible_labels(labels: list, num_classes: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassPrior.from_labels(labels, num_classes)

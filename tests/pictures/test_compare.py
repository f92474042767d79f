"""Methods compared by cross-validation on features, and the advice made of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from longtail.pictures import CANDIDATES, advise, cross_validate, recommend
from longtail.pictures.compare import stratified_folds
from longtail.training import Embeddings
from longtail.training.frozen import sampled_rows

BY_NAME = {candidate.name: candidate for candidate in CANDIDATES}
FAST = [BY_NAME["logit adjustment"], BY_NAME["cross-entropy"]]


def blobs(counts: list[int], apart: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian classes on the corners of a simplex."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    centres = apart * torch.eye(len(counts), 8)
    return centres[labels] + torch.randn(len(labels), 8, generator=generator), labels


def test_every_class_spreads_over_the_folds() -> None:
    _, labels = blobs([50, 7, 2, 1], 1.0)
    fold = stratified_folds(labels, 5, seed=3)
    for label, count in enumerate([50, 7, 2]):
        sizes = torch.bincount(fold[labels == label], minlength=5)
        assert sizes.sum() == count
        assert sizes.max() - sizes.min() <= 1
    assert fold[labels == 3].tolist() == [-1]  # never held out


def test_the_prior_matters_where_a_class_is_rare() -> None:
    features, labels = blobs([400, 400, 30], 1.5)
    adjusted, plain = cross_validate(features, labels, 3, FAST, folds=4)
    assert adjusted.balanced_accuracy > plain.balanced_accuracy + 0.05
    assert plain.accuracy > adjusted.accuracy - 0.05
    assert recommend([adjusted, plain]) is adjusted
    assert plain.differs
    assert adjusted.behind == (0.0, 0.0)
    assert plain.worst_class == 2
    low, high = adjusted.interval
    assert low < adjusted.balanced_accuracy < high


def test_nothing_differs_where_classes_are_easy() -> None:
    features, labels = blobs([40, 30, 20], 30.0)
    rows = cross_validate(features, labels, 3, FAST, folds=3)
    assert [row.balanced_accuracy for row in rows] == [1.0, 1.0]
    assert recommend(rows).candidate.name == "logit adjustment"  # the first, as simple as any
    assert not any(row.differs for row in rows)


@pytest.mark.parametrize(
    "counts", [[1000, 3], [30, 1], [2, 2], [5, 1, 1]], ids=lambda counts: "-".join(map(str, counts))
)
def test_few_images(counts: list[int]) -> None:
    features, labels = blobs(counts, 3.0)
    for row in cross_validate(features, labels, len(counts), FAST):
        assert 0 <= row.balanced_accuracy <= 1
        assert math.isfinite(row.log_loss)


def test_sampling_gives_every_class_its_share() -> None:
    _, labels = blobs([90, 9, 1], 1.0)
    rows = sampled_rows(labels, "class_balanced", seed=0)
    assert torch.bincount(labels[rows]).tolist() == [34, 34, 34]
    assert len(rows[labels[rows] == 1].unique()) == 9  # all of them before any a fourth time
    assert sampled_rows(labels, "shuffle", seed=0).tolist() == list(range(100))
    root = torch.bincount(labels[sampled_rows(labels, "square_root", seed=0)])
    assert root[0] > root[1] > root[2] > 1


def embeddings(counts: list[int]) -> Embeddings:
    features, labels = blobs(counts, 2.0)
    return Embeddings(
        features=features.numpy().astype(np.float32),
        labels=labels.numpy(),
        index=np.arange(len(labels)),
        splits=("train",) * len(labels),
        paths=("",) * len(labels),
        class_names=("owl", "tit", "auk")[: len(counts)],
        name="birds",
        backbone="efficientnet_lite0",
    )


def test_advice_in_words() -> None:
    found = advise(embeddings([300, 300, 12]), candidates=FAST)
    assert found.command == "longtail train birds --method logit_adjust"
    elsewhere = replace(
        found, data="my birds", data_options=("--data.label-column", "kind"), backbone="resnet18"
    )
    assert elsewhere.command == (
        "longtail train 'my birds' --data.label-column kind --backbone resnet18 "
        "--method logit_adjust"
    )
    assert found.words.startswith("Recommended: logit adjustment, balanced accuracy ")
    assert "Cross-entropy: -" in found.words
    assert "beyond chance" in found.words
    assert found.table().row_count == 2


def test_no_class_with_two_images() -> None:
    with pytest.raises(ValueError, match="birds must have a class with two training images"):
        advise(embeddings([1, 1]))

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from torchmetrics.functional import classification as torchmetrics_oracle

from longtail import ClassPrior
from longtail.errors import InputError
from longtail.metrics import (
    Confusion,
    classification_metrics,
    confusion_matrix,
    metrics_from_scores,
    per_class_recall,
    score_samples,
)
from longtail.metrics import scores as scores_module

COUNTS = [500, 101, 100, 20, 19, 2]


def made_up(samples=400, classes=6, seed=0, absent=None):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (samples,), generator=generator)
    if absent is not None:
        labels[labels == absent] = 0
    logits = torch.randn(samples, classes, generator=generator) * 2
    logits[torch.arange(samples), labels] += 1.5
    return logits, labels


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.parametrize("absent", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_metrics_are_those_of_scikit_learn(absent, dtype):
    logits, labels = made_up(absent=absent)
    logits = logits.to(dtype)
    ours = classification_metrics(logits, labels, ClassPrior(COUNTS))
    probabilities = logits.double().softmax(1).numpy()
    predicted = logits.argmax(1).numpy()
    true = labels.numpy()
    theirs = {
        "accuracy": oracle.accuracy_score(true, predicted),
        "balanced_accuracy": oracle.balanced_accuracy_score(true, predicted),
        "macro_f1": oracle.f1_score(true, predicted, average="macro"),
        "macro_f1_classes": len(set(true.tolist()) | set(predicted.tolist())),
        "nll": oracle.log_loss(true, probabilities, labels=range(6)),
        "brier": oracle.brier_score_loss(true, probabilities, labels=range(6), scale_by_half=False),
    }
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-12)
    for name, members in {"many": [0, 1], "medium": [2, 3], "few": [4, 5]}.items():
        inside = torch.isin(labels, torch.tensor(members)).numpy()
        expected = oracle.accuracy_score(true[inside], predicted[inside])
        assert ours[name] == pytest.approx(expected), name


@pytest.mark.parametrize("bins", [1, 7, 20])
def test_ece_is_that_of_torchmetrics(bins):
    logits, labels = made_up()
    ours = classification_metrics(logits, labels, ClassPrior(COUNTS), bins=bins)["ece"]
    theirs = torchmetrics_oracle.multiclass_calibration_error(
        logits.double().softmax(1), labels, num_classes=6, n_bins=bins
    )
    assert ours == pytest.approx(float(theirs), abs=1e-6)  # torchmetrics casts to float32


def test_confusion_matrix_and_recall_are_those_of_the_oracles():
    logits, labels = made_up(absent=3)
    matrix = confusion_matrix(logits, labels)
    assert matrix.equal(
        torchmetrics_oracle.multiclass_confusion_matrix(logits.argmax(1), labels, num_classes=6)
    )
    recall = per_class_recall(logits, labels)
    assert recall[3].isnan()
    present = [0, 1, 2, 4, 5]
    expected = oracle.recall_score(labels, logits.argmax(1), average=None, labels=present)
    assert recall[present].numpy() == pytest.approx(expected)


def test_groups_average_to_the_accuracy_on_an_unbalanced_test_set():
    logits, labels = made_up(absent=1)
    prior = ClassPrior(COUNTS)
    metrics = classification_metrics(logits, labels, prior)
    sizes = {name: torch.isin(labels, members).sum() for name, members in prior.groups().items()}
    total = sum(metrics[name] * float(size) for name, size in sizes.items()) / len(labels)
    assert total == pytest.approx(metrics["accuracy"])


def test_group_without_class_or_without_sample_is_nan():
    logits, labels = made_up(classes=3)
    metrics = classification_metrics(logits, labels, ClassPrior([500, 400, 300]))
    assert math.isnan(metrics["medium"])
    assert math.isnan(metrics["few"])
    only_head = torch.zeros(400, dtype=torch.long)
    metrics = classification_metrics(logits, only_head, ClassPrior([500, 50, 5]))
    assert math.isnan(metrics["few"])
    assert not math.isnan(metrics["many"])


def test_class_ruled_out_by_minus_infinity():
    logits = torch.tensor([[0.0, 0.0, -math.inf], [1.0, -math.inf, -math.inf]])
    prior = ClassPrior([3, 2, 1])
    metrics = classification_metrics(logits, torch.tensor([0, 0]), prior)
    assert metrics["nll"] == pytest.approx(math.log(2) / 2)
    assert metrics["brier"] == pytest.approx(0.25)  # (1/4 + 1/4) / 2 samples
    wrong = classification_metrics(logits, torch.tensor([0, 2]), prior)
    assert wrong["nll"] == math.inf
    assert wrong["brier"] == pytest.approx((0.5 + 2) / 2)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits(size):
    logits = torch.tensor([[size, 0.0], [0.0, size]])
    metrics = classification_metrics(logits, torch.tensor([0, 0]), ClassPrior([2, 1]))
    assert metrics["nll"] == pytest.approx(1e4 / 2)
    assert metrics["brier"] == pytest.approx(1)
    assert metrics["ece"] == pytest.approx(0.5)
    shifted = classification_metrics(logits + 1e5, torch.tensor([0, 0]), ClassPrior([2, 1]))
    assert shifted == pytest.approx(metrics, nan_ok=True)


def test_equal_logits_predict_the_first_class():
    assert score_samples(torch.zeros(1, 4), torch.tensor([2])).predicted.tolist() == [0]


def test_one_class_and_one_sample():
    metrics = classification_metrics(torch.zeros(1, 1), torch.tensor([0]), ClassPrior([5]))
    assert metrics["accuracy"] == metrics["few"] == metrics["macro_f1"] == 1
    assert metrics["nll"] == metrics["brier"] == metrics["ece"] == 0


def test_chunks_change_nothing(monkeypatch):
    logits, labels = made_up()
    prior = ClassPrior(COUNTS)
    whole = metrics_from_scores(score_samples(logits, labels), prior)
    monkeypatch.setattr(scores_module, "CHUNK_ELEMENTS", 6 * 7)  # 400 is no multiple of 7
    assert metrics_from_scores(score_samples(logits, labels), prior) == whole


def test_logits_are_left_as_they_are():
    logits, labels = made_up()
    logits = logits.double()
    before = logits.clone()
    classification_metrics(logits, labels, ClassPrior(COUNTS))
    assert logits.equal(before)


@pytest.mark.parametrize(
    ("row", "got"),
    [([0.0, math.nan], "nan"), ([0.0, math.inf], "inf"), ([-math.inf, -math.inf], "-inf")],
)
def test_a_row_that_says_nothing_is_named(monkeypatch, row, got):
    monkeypatch.setattr(scores_module, "CHUNK_ELEMENTS", 4)
    logits = torch.tensor([[0.0, 1.0]] * 5 + [row] + [[1.0, 0.0]])
    with pytest.raises(ValueError, match=rf"finite largest value in every row, got {got} in row 5"):
        score_samples(logits, torch.zeros(7, dtype=torch.long))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), [], r"got \(0, 3\) and \(0,\)"),
        (torch.zeros(2, 3), [0], r"got \(2, 3\) and \(1,\)"),
        (torch.zeros(3), [0, 1, 2], r"got \(3,\) and \(3,\)"),
        (torch.zeros(2, 3), [0, 3], r"labels must lie in \[0, 3\), got 3 in row 1"),
        (torch.zeros(2, 3), [-1, 0], r"labels must lie in \[0, 3\), got -1 in row 0"),
    ],
)
def test_bad_input_is_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(
            logits, torch.tensor(labels, dtype=torch.long), ClassPrior([3, 2, 1])
        )


def test_arrays_are_as_good_as_tensors():
    logits, labels = made_up(samples=20)
    prior = ClassPrior(COUNTS)
    ours = classification_metrics(logits.numpy()[::-1], labels.numpy()[::-1], prior)
    assert ours == pytest.approx(classification_metrics(logits, labels, prior), nan_ok=True)


def test_macro_f1_leaves_out_classes_that_are_neither_tested_nor_predicted():
    logits, labels = torch.eye(4)[[0, 1, 1]], torch.tensor([0, 1, 0])
    metrics = classification_metrics(logits, labels, ClassPrior([4, 3, 2, 1]))
    expected = oracle.f1_score(labels, logits.argmax(1), average="macro")
    assert metrics["macro_f1"] == pytest.approx(expected)
    assert metrics["macro_f1_classes"] == 2


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1],
        (0, 1),
        np.array([0, 1], dtype=np.int32),
        np.array([0.0, 1.0]),
        np.array([False, True]),
        torch.tensor([0, 1], dtype=torch.uint8),
        torch.tensor([0.0, 1.0]),
    ],
)
def test_labels_of_any_type_are_accepted(labels):
    for scores in (score_samples(torch.eye(2), labels), score_samples([[1, 0], [0, 1]], labels)):
        assert scores.labels.tolist() == [0, 1]
        assert scores.labels.dtype == torch.int64
    assert confusion_matrix(np.eye(2), labels).tolist() == [[1, 0], [0, 1]]
    assert per_class_recall(np.eye(2), labels).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.9, 1.0], r"labels must be whole class indices, got 0\.9"),
        ([math.nan, 1.0], "labels must be whole class indices, got nan"),
        ([math.inf, 1.0], "labels must be whole class indices, got .*inf"),
        (torch.tensor([1j, 0]), "labels must be whole class indices"),
        (["cat", "dog"], "labels must be numbers, got .*cat"),
        ([None, 1], "labels must be numbers, got None"),
        ([0, 2], r"labels must lie in \[0, 2\), got 2 in row 1"),
        (np.array([0, 255], dtype=np.uint8), r"labels must lie in \[0, 2\), got 255 in row 1"),
        ([[0, 1]], r"got \(2, 2\) and \(1, 2\)"),
        (None, "labels must be numbers, got None"),
    ],
)
def test_labels_that_are_no_class_indices_are_named(labels, message):
    with pytest.raises(InputError, match=message):
        score_samples(torch.eye(2), labels)


def test_class_indices_of_a_confusion_are_checked():
    with pytest.raises(InputError, match=r"predicted of Confusion must lie in \[0, 2\), got 2"):
        Confusion.from_labels([0, 1], [0, 2], 2)
    with pytest.raises(InputError, match=r"labels of Confusion must be numbers, got .*cat"):
        Confusion.from_labels(["cat"], [0], 2)


def test_a_prior_of_another_type_is_named():
    with pytest.raises(InputError, match="prior must be a ClassPrior, got list"):
        classification_metrics(torch.eye(2), [0, 1], [3, 2])


def test_prior_of_another_data_set_is_named():
    with pytest.raises(ValueError, match="prior must have the 6 classes of the logits, got 2"):
        classification_metrics(*made_up(), ClassPrior([2, 1]))

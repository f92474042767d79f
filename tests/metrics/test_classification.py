import math

import pytest
import torch
from sklearn import metrics as oracle
from torchmetrics.functional import classification as torchmetrics_oracle

from longtail import ClassPrior
from longtail.metrics import (
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
def test_figures_are_those_of_scikit_learn(absent, dtype):
    logits, labels = made_up(absent=absent)
    logits = logits.to(dtype)
    ours = classification_metrics(logits, labels, ClassPrior(COUNTS))
    probabilities = logits.double().softmax(1).numpy()
    predicted = logits.argmax(1).numpy()
    true = labels.numpy()
    theirs = {
        "accuracy": oracle.accuracy_score(true, predicted),
        "balanced_accuracy": oracle.balanced_accuracy_score(true, predicted),
        "macro_f1": oracle.f1_score(
            true, predicted, average="macro", labels=range(6), zero_division=0
        ),
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
    figures = classification_metrics(logits, labels, prior)
    sizes = {name: torch.isin(labels, members).sum() for name, members in prior.groups().items()}
    total = sum(figures[name] * float(size) for name, size in sizes.items()) / len(labels)
    assert total == pytest.approx(figures["accuracy"])


def test_group_without_class_or_without_sample_is_nan():
    logits, labels = made_up(classes=3)
    figures = classification_metrics(logits, labels, ClassPrior([500, 400, 300]))
    assert math.isnan(figures["medium"])
    assert math.isnan(figures["few"])
    only_head = torch.zeros(400, dtype=torch.long)
    figures = classification_metrics(logits, only_head, ClassPrior([500, 50, 5]))
    assert math.isnan(figures["few"])
    assert not math.isnan(figures["many"])


def test_class_ruled_out_by_minus_infinity():
    logits = torch.tensor([[0.0, 0.0, -math.inf], [1.0, -math.inf, -math.inf]])
    prior = ClassPrior([3, 2, 1])
    figures = classification_metrics(logits, torch.tensor([0, 0]), prior)
    assert figures["nll"] == pytest.approx(math.log(2) / 2)
    assert figures["brier"] == pytest.approx(0.25)  # (1/4 + 1/4) / 2 samples
    wrong = classification_metrics(logits, torch.tensor([0, 2]), prior)
    assert wrong["nll"] == math.inf
    assert wrong["brier"] == pytest.approx((0.5 + 2) / 2)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits(size):
    logits = torch.tensor([[size, 0.0], [0.0, size]])
    figures = classification_metrics(logits, torch.tensor([0, 0]), ClassPrior([2, 1]))
    assert figures["nll"] == pytest.approx(1e4 / 2)
    assert figures["brier"] == pytest.approx(1)
    assert figures["ece"] == pytest.approx(0.5)
    shifted = classification_metrics(logits + 1e5, torch.tensor([0, 0]), ClassPrior([2, 1]))
    assert shifted == pytest.approx(figures, nan_ok=True)


def test_equal_logits_predict_the_first_class():
    assert score_samples(torch.zeros(1, 4), torch.tensor([2])).predicted.tolist() == [0]


def test_one_class_and_one_sample():
    figures = classification_metrics(torch.zeros(1, 1), torch.tensor([0]), ClassPrior([5]))
    assert figures["accuracy"] == figures["few"] == figures["macro_f1"] == 1
    assert figures["nll"] == figures["brier"] == figures["ece"] == 0


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


def test_labels_between_classes_are_named():
    with pytest.raises(ValueError, match=r"labels must be whole class indices, got 0\.9"):
        score_samples(torch.eye(2), torch.tensor([0.9, 1.0]))


def test_prior_of_another_data_set_is_named():
    with pytest.raises(ValueError, match="prior must have the 6 classes of the logits, got 2"):
        classification_metrics(*made_up(), ClassPrior([2, 1]))

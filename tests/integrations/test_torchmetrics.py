"""torchmetrics: the same values as `longtail.metrics`, over batches and processes."""

import matplotlib as mpl
import pytest
import torch
from torch import Tensor

from longtail import ClassPrior
from longtail.integrations.torchmetrics import (
    BalancedAccuracy,
    ClasswiseCalibrationError,
    GroupAccuracy,
)
from longtail.metrics import classification_metrics, classwise_ece, score_samples

PRIOR = ClassPrior([500, 60, 30, 5])


def made(samples: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 4, generator=generator), torch.arange(samples) % 4


def test_groups_and_balanced_accuracy_over_batches() -> None:
    logits, labels = made()
    groups, balanced = GroupAccuracy(PRIOR), BalancedAccuracy(4)
    for part in torch.arange(200).split(37):
        groups.update(logits[part], labels[part])
        balanced.update(logits[part].argmax(1), labels[part])
    expected = classification_metrics(logits, labels, PRIOR)
    found = {name: float(value) for name, value in groups.compute().items()}
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-6)
    assert float(balanced.compute()) == pytest.approx(expected["balanced_accuracy"], abs=1e-6)


def test_metrics_of_two_processes_add_up() -> None:
    logits, labels = made()
    whole = ClasswiseCalibrationError(4, bins=7)
    whole.update(logits.softmax(1), labels)
    halves = [ClasswiseCalibrationError(4, bins=7) for _ in range(2)]
    for half, part in zip(halves, torch.arange(200).chunk(2), strict=True):
        half.update(logits[part].softmax(1), labels[part])
    halves[0].gap += halves[1].gap  # what dist_reduce_fx="sum" does
    halves[0].total += halves[1].total
    torch.testing.assert_close(halves[0].compute(), whole.compute())


def test_calibration_error_as_slow_loops() -> None:
    logits, labels = made()
    p = logits.softmax(1).double()
    metric = ClasswiseCalibrationError(4, bins=5)
    metric.update(p, labels)
    errors = []
    for c in range(4):
        error = 0.0
        for lower in range(5):
            chosen = [i for i in range(200) if lower / 5 < float(p[i, c]) <= (lower + 1) / 5]
            if chosen:
                frequency = sum(float(labels[i] == c) for i in chosen) / len(chosen)
                confidence = sum(float(p[i, c]) for i in chosen) / len(chosen)
                error += len(chosen) / 200 * abs(frequency - confidence)
        errors.append(error)
    assert float(metric.compute()) == pytest.approx(sum(errors) / 4, abs=1e-12)


def test_calibration_error_is_that_of_the_package_on_the_edges_of_bins_too() -> None:
    p = torch.tensor([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0], [0.2, 0.8]], dtype=torch.float64)
    labels = torch.tensor([1, 0, 0, 1])
    metric = ClasswiseCalibrationError(2, bins=4)
    metric.update(p, labels)
    assert float(metric.compute()) == pytest.approx(
        float(classwise_ece(score_samples(p.log(), labels, bins=4))), abs=1e-12
    )


def test_undefined_values_are_nan() -> None:
    metric = GroupAccuracy(PRIOR)
    metric.update(torch.tensor([0]), torch.tensor([0]))
    assert metric.compute()["few"].isnan()


@pytest.mark.parametrize(
    ("preds", "target", "facts"),
    [
        (torch.tensor([4]), torch.tensor([0]), r"preds .*\[0, 4\).* 4"),
        (torch.tensor([0]), torch.tensor([-1]), r"target .*\[0, 4\).* -1"),
        (torch.tensor([0.5]), torch.tensor([0]), r"preds .*whole class indices, got 0\.5"),
        (torch.tensor([0, 1]), torch.tensor([0]), r"preds and target .*\(2,\) and \(1,\)"),
        (torch.eye(3), torch.arange(3), r"preds .*\(N, 4\) .*\(3, 3\) and \(3,\)"),
        (torch.eye(5), torch.arange(5) % 4, r"preds .*\(N, 4\) .*\(5, 5\) and \(5,\)"),
        (
            torch.tensor([[0, 1, 0, 0], [0, torch.nan, 1, 0]]),
            torch.tensor([1, 1]),
            "preds must have a finite largest value .* got nan in row 1",
        ),
    ],
)
def test_input_that_cannot_be_counted(preds: Tensor, target: Tensor, facts: str) -> None:
    with pytest.raises(ValueError, match=facts):
        GroupAccuracy(PRIOR).update(preds, target)
    with pytest.raises(ValueError, match=facts):
        BalancedAccuracy(4).update(preds, target)


def test_scores_of_minus_infinity_and_an_empty_batch_are_counted() -> None:
    metric = BalancedAccuracy(4)
    metric.update(torch.eye(4).log(), torch.arange(4))
    metric.update(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert float(metric.compute()) == 1.0


def test_logits_are_not_taken_for_probabilities() -> None:
    with pytest.raises(ValueError, match="softmax"):
        ClasswiseCalibrationError(4).update(*made())
    with pytest.raises(ValueError, match=r"bins .* got 0"):
        ClasswiseCalibrationError(4, bins=0)
    with pytest.raises(ValueError, match=r"bins .* whole number, got 2.5"):
        ClasswiseCalibrationError(4, bins=2.5)  # type: ignore[arg-type]


def test_plots() -> None:
    mpl.use("Agg")
    for metric in (GroupAccuracy(PRIOR), BalancedAccuracy(4), ClasswiseCalibrationError(4)):
        metric.update(made()[0].softmax(1), made()[1])
        figure, _ = metric.plot()
        assert figure is not None

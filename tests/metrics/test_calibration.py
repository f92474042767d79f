import pytest
import torch

from longtail.metrics import calibration_curve, classwise_ece, score_samples
from longtail.metrics import scores as scores_module


def made_up(samples=200):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, 5, generator=generator, dtype=torch.float64) * 2
    return logits, torch.randint(0, 5, (samples,), generator=generator)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_curve_is_the_slow_one(bins):
    logits, labels = made_up()
    curve = calibration_curve(logits, labels, bins)
    confidence, predicted = logits.softmax(1).max(1)
    ece = 0.0
    for place in range(bins):
        inside = [
            i for i, c in enumerate(confidence.tolist()) if place / bins < c <= (place + 1) / bins
        ]
        assert curve.count[place] == len(inside)
        if not inside:
            assert curve.confidence[place].isnan()
            assert curve.accuracy[place].isnan()
            continue
        mean = sum(float(confidence[i]) for i in inside) / len(inside)
        right = sum(bool(predicted[i] == labels[i]) for i in inside) / len(inside)
        assert float(curve.confidence[place]) == pytest.approx(mean)
        assert float(curve.accuracy[place]) == pytest.approx(right)
        ece += len(inside) / len(labels) * abs(right - mean)
    assert curve.ece == pytest.approx(ece)


def test_confidence_on_an_edge_lies_in_the_bin_below_it():
    certain = torch.tensor([[1000.0, 0.0], [0.0, 0.0]])  # confidences 1 and 1/2
    curve = calibration_curve(certain, torch.tensor([0, 0]), bins=4)
    assert curve.count.tolist() == [0, 1, 0, 1]


def test_bins_below_one_are_refused():
    with pytest.raises(ValueError, match=r"bins must be in \[1, \d+\], got 0"):
        calibration_curve(*made_up(), bins=0)


@pytest.mark.parametrize("bins", [1, 2, 15, 20])
def test_classwise_ece_is_the_slow_one(bins, monkeypatch):
    monkeypatch.setattr(scores_module, "CHUNK_ELEMENTS", 5 * 7)  # many chunks
    logits, labels = made_up()
    probabilities = logits.softmax(1)
    total = 0.0
    for c in range(5):
        for bin_ in range(bins):
            inside = [
                i
                for i, p in enumerate(probabilities[:, c].tolist())
                if bin_ / bins < p <= (bin_ + 1) / bins
            ]
            if inside:
                mean = sum(float(probabilities[i, c]) for i in inside) / len(inside)
                share = sum(int(labels[i]) == c for i in inside) / len(inside)
                total += len(inside) / len(labels) * abs(share - mean) / 5
    assert classwise_ece(score_samples(logits, labels, bins)) == pytest.approx(total)


def test_classwise_ece_of_certain_predictions():
    right = score_samples(torch.eye(3) * 1000, [0, 1, 2])
    wrong = score_samples(torch.eye(3) * 1000, [1, 2, 0])
    assert classwise_ece(right) == 0
    assert classwise_ece(wrong) == pytest.approx(2 / 3)  # 1/3 too much, 1/3 too little per class

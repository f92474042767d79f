"""Estimators of the class mix: golden values, truth they must find, and bad input."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from longtail.prior import ClassPrior
from longtail.shift import Calibration, adjust, estimate_prior, fit_calibration
from longtail.shift.estimation.confusion import Confusion
from longtail.shift.estimation.em import em_prior
from longtail.shift.estimation.kdey import kdey_prior
from longtail.shift.estimation.moments import bbse_prior, rlls_prior, rlls_radius

METHODS = ("em", "bbse", "bbse_soft", "rlls", "kdey")
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))


def gaussians(
    mix: Tensor, size: int, expressed: Tensor, seed: int, spread: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Logits of the Bayes classifier under `expressed`, of samples drawn with `mix`; labels."""
    generator = torch.Generator().manual_seed(seed)
    classes = len(mix)
    means = torch.randn(classes, 3, generator=torch.Generator().manual_seed(7)).double() * spread
    labels = torch.multinomial(mix, size, replacement=True, generator=generator)
    x = means[labels] + torch.randn(size, 3, generator=generator).double()
    return -0.5 * torch.cdist(x, means) ** 2 + expressed.log(), labels


def tail(classes: int, imbalance: float = 10.0) -> Tensor:
    p = imbalance ** -(torch.arange(classes).double() / (classes - 1))
    return p / p.sum()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", ["bcts", "vs"])
def test_agrees_with_abstention_and_quapy(path: Path, kind: str) -> None:
    golden = np.load(path)
    mix, logits = golden["mix"], (golden["source_logits"], golden["source_labels"])
    fitted = fit_calibration(*logits, mix, kind=kind, ridge=0.0)  # type: ignore[arg-type]
    p = torch.tensor(mix)
    calibrated = fitted.posteriors(torch.tensor(logits[0]), p, p)
    # L-BFGS on their side stops at a gradient of about 1e-7.
    np.testing.assert_allclose(calibrated, golden[f"{kind}_source"], atol=1e-6)
    names = {"em": "em", "bbse": "bbse_hard", "bbse_soft": "bbse_soft", "rlls": "rlls_soft"}
    for method, name in names.items():
        found = estimate_prior(
            *logits,
            golden["target_logits"],
            mix,
            method,  # type: ignore[arg-type]
            calibration=fitted,
            strength=0.0,
            resamples=0,
        )
        # RLLS: their general convex solver stops at 1e-5 or so.
        tolerance = 1e-5 if method == "rlls" else 1e-6
        np.testing.assert_allclose(found.prior, golden[f"{kind}_{name}"], atol=tolerance)
        if kind == "bcts" and method != "rlls":
            np.testing.assert_allclose(found.prior, golden[f"quapy_{name}"], atol=1e-6)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_hard_rlls_agrees_with_abstention(path: Path) -> None:
    golden = np.load(path)
    p, labels = torch.tensor(golden["mix"]), torch.tensor(golden["source_labels"])
    source, target = torch.tensor(golden["source_logits"]), torch.tensor(golden["target_logits"])
    fitted = fit_calibration(source, labels, p, kind="bcts", ridge=0.0)
    posteriors = fitted.posteriors(source, p, p)
    confusion = Confusion(posteriors.argmax(dim=1), labels, posteriors)
    predicted = fitted.posteriors(target, p, p).argmax(dim=1)
    mean = torch.bincount(predicted, minlength=len(p)).double() / len(target)
    found = rlls_prior(confusion.matrix, mean, p, rlls_radius(len(p), len(labels)))
    np.testing.assert_allclose(found, golden["bcts_rlls_hard"], atol=1e-4)


def test_em_against_plain_loops() -> None:
    p, q = tail(4), tail(4).flip(0)
    posteriors = gaussians(q, 60, p, seed=0)[0].softmax(dim=1)
    strength, found = 2.5, list(p.tolist())
    for _ in range(3000):
        total = [strength * prior for prior in p.tolist()]
        for row in posteriors.tolist():
            terms = [row[c] * found[c] / float(p[c]) for c in range(4)]
            total = [t + term / sum(terms) for t, term in zip(total, terms, strict=True)]
        found = [t / (60 + strength) for t in total]
    np.testing.assert_allclose(em_prior(posteriors, p, strength), found, atol=1e-7)


def test_em_maximises_the_likelihood() -> None:
    p, q = tail(5), tail(5).flip(0)
    posteriors = gaussians(q, 200, p, seed=1)[0].softmax(dim=1)
    found = em_prior(posteriors, p)

    def likelihood(mix: Tensor) -> float:
        return float((posteriors @ (mix / p)).log().sum())

    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        other = (found * (0.1 * torch.randn(5, generator=generator)).exp()).double()
        assert likelihood(other / other.sum()) <= likelihood(found) + 1e-9


def test_bbse_is_exact_for_a_known_confusion() -> None:
    matrix = torch.tensor([[0.8, 0.3], [0.2, 0.7]], dtype=torch.float64)
    q = torch.tensor([0.1, 0.9], dtype=torch.float64)
    torch.testing.assert_close(bbse_prior(matrix, matrix @ q), q)
    torch.testing.assert_close(
        rlls_prior(matrix, matrix @ q, torch.tensor([0.5, 0.5]).double(), radius=1e-9), q
    )


def test_kdey_maximises_the_likelihood_of_kernel_densities() -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(30, 3, generator=generator).double().mul(4).softmax(dim=1)
    target = torch.rand(50, 3, generator=generator).double().mul(4).softmax(dim=1)
    labels = source.argmax(dim=1)
    found = kdey_prior(source, labels, target)
    slope = torch.zeros(3, dtype=torch.float64)
    for row in target:
        near = torch.exp(-0.5 * ((row - source) ** 2).sum(dim=1) / 0.1**2)
        density = torch.stack([near[labels == c].mean() for c in range(3)])
        slope += density / (found @ density) / len(target)
    # At the maximum the slope along a class is 1, or less where the class has no share.
    expected = torch.where(found > 1e-3, 1.0, slope.clamp(max=1))
    torch.testing.assert_close(slope, expected, atol=1e-5, rtol=0.0)


def test_rlls_with_a_large_radius_stays_where_it_is() -> None:
    matrix = torch.tensor([[0.8, 0.3], [0.2, 0.7]], dtype=torch.float64)
    p = torch.tensor([0.5, 0.5], dtype=torch.float64)
    found = rlls_prior(matrix, torch.tensor([0.9, 0.1]).double(), p, radius=100.0)
    torch.testing.assert_close(found, p)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("balanced", [False, True])
def test_finds_a_known_shift(method: str, balanced: bool) -> None:
    p, q = tail(5), tail(5).flip(0)
    source = torch.full_like(p, 0.2) if balanced else p
    found = estimate_prior(
        *gaussians(source, 3000, p, seed=0),
        gaussians(q, 3000, p, seed=1)[0],
        p,
        method,  # type: ignore[arg-type]
    )
    assert found.shifted
    assert found.prior is found.estimated
    # Predicted classes say less than posteriors do.
    assert (found.prior - q).abs().sum() < (0.2 if method == "bbse" else 0.12)
    assert (found.interval[:, 0] <= found.interval[:, 1]).all()
    torch.testing.assert_close(found.prior.sum(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("method", METHODS[:4])
def test_overconfident_and_biased_logits_are_calibrated(method: str) -> None:
    p, q = tail(5), tail(5).flip(0)
    bias = torch.tensor([0.0, 1.0, -1.0, 0.5, 0.0]).double()
    source, labels = gaussians(p, 3000, p, seed=0)
    target = gaussians(q, 3000, p, seed=1)[0]
    found = estimate_prior(3 * source + bias, labels, 3 * target + bias, p, method)  # type: ignore[arg-type]
    assert (found.prior - q).abs().sum() < (0.25 if method == "bbse" else 0.15)
    torch.testing.assert_close(
        found.calibration(3 * target + bias).softmax(dim=1),
        target.softmax(dim=1),
        atol=0.1,  # a fit to 3,000 samples
        rtol=0.0,
    )


@pytest.mark.parametrize("method", METHODS)
def test_no_shift_changes_nothing(method: str) -> None:
    p = ClassPrior([50, 30, 20, 10])
    source = gaussians(p.probabilities, 1000, p.probabilities, seed=0)
    target = gaussians(p.probabilities, 1000, p.probabilities, seed=1)[0]
    found = estimate_prior(*source, target, p, method)  # type: ignore[arg-type]
    assert not found.shifted
    assert found.p_value > 0.05
    assert torch.equal(adjust(target, p, found.prior), target)
    assert not torch.equal(found.estimated, found.prior)


def test_no_shift_test_holds_its_level_and_the_interval_its_promise() -> None:
    p, q = tail(4), tail(4).flip(0)
    rejected, held, runs = 0, torch.zeros(4), 60
    for seed in range(runs):
        source = gaussians(p, 300, p, seed=2 * seed)
        same = estimate_prior(*source, gaussians(p, 300, p, seed=2 * seed + 1)[0], p)
        rejected += same.shifted
        shifted = estimate_prior(*source, gaussians(q, 300, p, seed=2 * seed + 1)[0], p)
        held += (shifted.interval[:, 0] <= q) & (q <= shifted.interval[:, 1])
        assert shifted.shifted
    # Binomial: 60 * 0.05 = 3, and 240 * 0.95 = 228 with standard deviation 3.4 were they free.
    assert rejected <= 8
    assert 0.89 <= float(held.mean()) / runs <= 0.995


@pytest.mark.parametrize(("share", "widest"), [(0.0, 0.1), (0.02, 0.15)])
def test_the_interval_of_a_class_that_is_hardly_there(share: float, widest: float) -> None:
    p = tail(4)
    q = torch.cat([p[:3] / p[:3].sum() * (1 - share), torch.tensor([share])])
    held, width, runs = 0, 0.0, 40
    for seed in range(runs):
        target = gaussians(q, 60, p, seed=2 * seed + 1)[0]
        found = estimate_prior(*gaussians(p, 200, p, seed=2 * seed), target, p)
        low, high = found.interval[3].tolist()
        held += low <= share <= high
        width += (high - low) / runs
    assert held >= 0.9 * runs
    assert width < widest


def test_no_interval_is_undefined_where_the_source_lacks_the_class() -> None:
    source, target = torch.eye(3)[[0, 1] * 5], torch.eye(3)[[2] * 5]
    labels = torch.tensor([0, 1] * 5)
    for method in METHODS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = estimate_prior(
                30 * source, labels, 30 * target, [1 / 3] * 3, method, strength=0.0
            )
        assert torch.isfinite(found.interval).all(), method


def test_source_prior_is_the_hypothesis() -> None:
    p = tail(4)
    uniform = torch.full_like(p, 0.25)
    source = gaussians(uniform, 1000, p, seed=0)
    target = gaussians(uniform, 1000, p, seed=1)[0]
    assert estimate_prior(*source, target, p).shifted
    found = estimate_prior(*source, target, p, source_prior=uniform)
    assert not found.shifted
    assert torch.equal(found.prior, uniform)


def test_without_a_source() -> None:
    p, q = tail(5), tail(5).flip(0)
    found = estimate_prior(None, None, gaussians(q, 3000, p, seed=1)[0], p)
    assert found.shifted
    assert (found.prior - q).abs().sum() < 0.12
    assert float(found.calibration.scale) == 1.0


def test_same_generator_state_same_result() -> None:
    p = tail(3)
    source, target = gaussians(p, 100, p, seed=0), gaussians(p.flip(0), 100, p, seed=1)[0]
    a, b = (
        estimate_prior(*source, target, p, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(a.interval, b.interval)
    assert a.p_value == b.p_value


def test_float32_array_and_tensor_agree() -> None:
    p = tail(3)
    (source, labels), target = gaussians(p, 200, p, seed=0), gaussians(p.flip(0), 200, p, seed=1)[0]
    a = estimate_prior(source, labels, target, p)
    frozen = target.float().numpy()
    frozen.flags.writeable = False
    b = estimate_prior(source.float().numpy(), labels.tolist(), frozen, p.numpy())
    torch.testing.assert_close(a.prior, b.prior, atol=1e-5, rtol=0.0)  # float32 inputs


def test_class_relabelling_relabels_the_answer() -> None:
    p, order = tail(4), torch.tensor([2, 0, 3, 1])
    (source, labels), target = gaussians(p, 300, p, seed=0), gaussians(p.flip(0), 300, p, seed=1)[0]
    a = estimate_prior(source, labels, target, p)
    place = order.argsort()
    b = estimate_prior(source[:, order], place[labels], target[:, order], p[order])
    torch.testing.assert_close(a.prior[order], b.prior)
    torch.testing.assert_close(a.interval[order], b.interval, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("method", METHODS)
def test_one_target_sample(method: str) -> None:
    p = tail(3)
    target = gaussians(p, 1, p, seed=1)[0]
    found = estimate_prior(*gaussians(p, 200, p, seed=0), target, p, method)  # type: ignore[arg-type]
    assert not found.shifted
    assert torch.equal(found.prior, p)
    assert torch.isfinite(found.interval).all()
    assert (found.interval.diff(dim=1) > 0.3).all()


@pytest.mark.parametrize("samples", [1, 2, 50])
def test_intervals_that_are_not_requested_are_undefined(samples: int) -> None:
    p = tail(3)
    target = gaussians(p, 50, p, seed=1)[0][:samples]
    found = estimate_prior(*gaussians(p, 200, p, seed=0), target, p, interval=False)
    assert found.interval.isnan().all()
    assert found.region is None
    assert torch.isfinite(found.prior).all()


@pytest.mark.parametrize("method", METHODS[:4])
def test_classes_without_a_source_sample(method: str) -> None:
    p, q = tail(5), tail(5).flip(0)
    source, labels = gaussians(p, 2000, p, seed=0)
    keep = labels != 4
    target = gaussians(q, 2000, p, seed=1)[0]
    found = estimate_prior(source[keep], labels[keep], target, p, method)  # type: ignore[arg-type]
    assert torch.isfinite(found.interval).all()
    assert (found.prior - q).abs().sum() < 0.5 * (p - q).abs().sum()


@pytest.mark.parametrize("method", ["bbse", "bbse_soft"])
def test_confusion_that_cannot_be_inverted_is_regularised(method: str) -> None:
    p, q = tail(3), tail(3).flip(0)
    # The last class becomes two that nothing tells apart.
    wide_p = torch.cat([p[:2], p[2:] / 2, p[2:] / 2])
    (source, labels), target = gaussians(p, 2000, p, seed=0), gaussians(q, 2000, p, seed=1)[0]
    source, target = (torch.cat([x, x[:, 2:]], dim=1) for x in (source, target))
    labels = torch.where((labels == 2) & (torch.arange(2000) % 2 == 0), 3, labels)
    options = {"method": method, "calibration": "none"}
    found = estimate_prior(source, labels, target, wide_p, **options)  # type: ignore[arg-type]
    assert found.regularised
    assert torch.isfinite(found.interval).all()
    assert abs(float(found.prior[2:].sum() - q[2])) < 0.1


def test_constant_logits_say_nothing() -> None:
    p = tail(3)
    for method in METHODS:
        found = estimate_prior(
            torch.zeros(30, 3),
            torch.arange(3).repeat(10),
            torch.zeros(20, 3),
            p,
            method,  # type: ignore[arg-type]
        )
        assert not found.shifted
        assert torch.isfinite(found.estimated).all()


def test_class_ruled_out_by_the_expressed_prior() -> None:
    p, q = tail(3), tail(3).flip(0)
    (source, labels), target = gaussians(p, 500, p, seed=0), gaussians(q, 500, p, seed=1)[0]
    zeros = torch.zeros(500, 1).double()
    wide_p = torch.cat([p, torch.zeros(1).double()])
    wide = torch.cat([source, zeros], dim=1), labels, torch.cat([target, zeros], dim=1), wide_p
    for method in METHODS:
        options = {"method": method, "calibration": "bcts", "strength": 0.5}
        found = estimate_prior(*wide, **options)  # type: ignore[arg-type]
        narrow = estimate_prior(source, labels, target, p, **options)  # type: ignore[arg-type]
        assert found.prior[3] == 0
        assert torch.isfinite(found.interval).all()
        if method == "em":
            torch.testing.assert_close(found.prior[:3], narrow.prior, atol=1e-6, rtol=0.0)
    with pytest.raises(ValueError, match=r"source_labels .* got class 3"):
        estimate_prior(torch.zeros(2, 4), [0, 3], torch.zeros(2, 4), wide_p)


def test_few_samples_of_many_classes_are_drawn_to_the_source() -> None:
    p = tail(300, 50.0)
    source = gaussians(p, 600, p, seed=0)
    target = gaussians(p, 100, p, seed=1)[0]
    loose, tight = (
        estimate_prior(*source, target, p, strength=strength, resamples=0).estimated
        for strength in (1.0, 300.0)
    )
    assert (tight - p).abs().sum() < 0.5 * (loose - p).abs().sum()
    assert (tight > 0).all()


def test_conjugate_gradients_agree_with_the_dense_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    p = tail(30)
    source = gaussians(p, 400, p, seed=0)
    dense = fit_calibration(*source, p, kind="bcts")
    monkeypatch.setattr("longtail.shift.estimation.likelihood.DENSE", 5)
    large = fit_calibration(*source, p, kind="bcts")
    torch.testing.assert_close(dense.bias, large.bias, atol=1e-5, rtol=0.0)


def test_more_classes_than_are_solved_for_densely(monkeypatch: pytest.MonkeyPatch) -> None:
    p, q = tail(30), tail(30).flip(0)
    source, target = gaussians(p, 2000, p, seed=0), gaussians(q, 2000, p, seed=1)[0]
    dense = estimate_prior(*source, target, p)
    monkeypatch.setattr("longtail.shift.estimation.estimator.DENSE", 5)
    large = estimate_prior(*source, target, p)
    assert dense.shifted
    assert large.shifted
    assert (dense.prior - large.prior).abs().sum() < 0.2
    assert large.region is None
    assert not large.reliable
    assert torch.isfinite(large.interval).all()
    assert (large.interval[:, 0] <= large.estimated).all()
    assert (large.estimated <= large.interval[:, 1]).all()


@pytest.mark.parametrize("method", METHODS)
def test_target_without_a_sample_of_a_class(method: str) -> None:
    p = tail(5)
    target, labels = gaussians(tail(5).flip(0), 2000, p, seed=1)
    found = estimate_prior(*gaussians(p, 2000, p, seed=0), target[labels != 3], p, method)  # type: ignore[arg-type]
    assert 0 <= float(found.prior[3]) < 0.02
    assert float(found.interval[3, 0]) < 0.01
    # 0 is an answer that the unregularised methods may give; the adjusted logits then rule it out.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="target of adjust is 0")
        assert not adjust(target, p, found.prior).isnan().any()


def test_few_source_samples_of_a_class_make_intervals_unreliable() -> None:
    p = tail(4)
    (source, labels), target = gaussians(p, 400, p, seed=0), gaussians(p, 300, p, seed=1)[0]
    keep = (labels != 3) | ((labels == 3).cumsum(0) <= 4)
    assert not estimate_prior(source[keep], labels[keep], target, p).reliable
    assert estimate_prior(source, labels, target, p).reliable
    assert not estimate_prior(None, None, target, p).reliable
    assert not estimate_prior(source, labels, target, p, interval=False).reliable


def good() -> dict[str, object]:
    return {
        "source_logits": torch.zeros(4, 2),
        "source_labels": [0, 1, 0, 1],
        "target_logits": torch.zeros(3, 2),
        "expressed": [0.5, 0.5],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_logits": torch.zeros(0, 2)}, "target_logits .* at least one sample, got none"),
        ({"target_logits": torch.zeros(3, 5)}, r"must have shape \(samples, 2\), got \(3, 5\)"),
        (
            {"target_logits": torch.tensor([[0.0, 0.0], [0.0, float("nan")]])},
            "target_logits of estimate_prior must be finite, got nan in row 1",
        ),
        (
            {"source_logits": torch.full((4, 2), float("inf"))},
            "source_logits of estimate_prior must be finite, got inf in row 0",
        ),
        ({"target_logits": torch.zeros(3, 2).long()}, "target_logits .* floating-point"),
        ({"source_labels": [0, 1, 0]}, r"source_labels .* shape \(4,\), got \(3,\)"),
        ({"source_labels": [0, 1, 0, 2]}, r"source_labels .* lie in \[0, 2\), got 2 in row 3"),
        ({"source_labels": [0, 1, 0, 0.5]}, "source_labels .* whole class indices"),
        ({"source_labels": None}, "must come together"),
        ({"expressed": [0.5, 0.6]}, "expressed of estimate_prior must sum to 1"),
        ({"expressed": [1.5, -0.5]}, "expressed of estimate_prior must hold"),
        ({"expressed": [1.0]}, r"shape \(samples, 1\), got \(3, 2\)"),
        ({"training_prior": [0.5, 0.6]}, "training_prior of estimate_prior must sum to 1"),
        ({"training_prior": [1.0]}, "training_prior of estimate_prior must have 2 classes, got 1"),
        ({"source_prior": [0.5, 0.6]}, "source_prior of estimate_prior must sum to 1"),
        ({"method": "bbs"}, "method of estimate_prior must be one of .* got 'bbs'"),
        ({"calibration": "ts"}, "calibration of estimate_prior must be .* got 'ts'"),
        ({"strength": -1.0}, "strength of estimate_prior must be >= 0, got -1.0"),
        ({"strength": np.nan}, "strength of estimate_prior must be >= 0 and finite, got nan"),
        ({"strength": np.inf}, "strength of estimate_prior must be >= 0 and finite, got inf"),
        ({"resamples": -1}, "resamples of estimate_prior must be >= 0, got -1"),
        ({"resamples": 1.5}, "resamples of estimate_prior must be a whole number, got 1.5"),
        (
            {"source_logits": None, "source_labels": None, "method": "bbse"},
            "method 'bbse' of estimate_prior needs source samples",
        ),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_prior(**(good() | change))  # type: ignore[arg-type]


def test_calibration_matches_a_general_optimiser() -> None:
    p = tail(4)
    logits, labels = gaussians(p, 300, p, seed=0)
    logits, ridge = 2 * logits, 0.7
    for kind, scales in (("bcts", 1), ("vs", 4)):
        fitted = fit_calibration(logits, labels, p, kind=kind, ridge=ridge)  # type: ignore[arg-type]
        swap = (torch.bincount(labels, minlength=4) / 300).log() - p.log()
        plain = logits - logits.mean(dim=1, keepdim=True) if kind == "vs" else logits
        log_scale = torch.zeros(scales, dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [log_scale, bias], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
        )

        def objective() -> Tensor:
            optimiser.zero_grad()  # noqa: B023
            scores = plain * log_scale.exp() + bias + swap  # noqa: B023
            loss = torch.nn.functional.cross_entropy(scores, labels, reduction="sum")
            loss = loss + ridge / 2 * (log_scale.square().sum() + bias.square().sum())  # noqa: B023
            loss.backward()
            return loss

        optimiser.step(objective)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(fitted.bias, bias.detach(), atol=1e-5, rtol=0.0)
        torch.testing.assert_close(
            fitted.scale.reshape(-1), log_scale.detach().exp(), atol=1e-5, rtol=0.0
        )


def test_calibration_of_perfect_predictions_is_finite() -> None:
    labels = torch.arange(3).repeat(5)
    fitted = fit_calibration(20 * torch.eye(3)[labels], labels, [0.2, 0.3, 0.5])
    assert torch.isfinite(fitted.scale).all()
    assert torch.isfinite(fitted.bias).all()


@pytest.mark.parametrize("seed", range(10))
def test_calibration_of_huge_logits_is_finite(seed: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 7, 40)
    logits = 1e3 * (2 * np.eye(7)[labels] + draw.normal(size=(40, 7)))
    fitted = fit_calibration(logits, labels, [1 / 7] * 7, kind="vs")
    assert torch.isfinite(fitted.scale).all()
    assert torch.isfinite(fitted.bias).all()


def test_one_class_has_no_mix_to_estimate() -> None:
    with pytest.raises(ValueError, match="must have 2 classes or more, got 1"):
        estimate_prior(np.zeros((4, 1)), [0] * 4, np.zeros((4, 1)), [1.0])


def test_calibration_keeps_the_type_and_none_changes_nothing() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert torch.equal(Calibration.none(3)(logits), logits)
    with pytest.raises(ValueError, match="ridge of fit_calibration must be >= 0, got -1"):
        fit_calibration(logits, [0, 1, 2, 0], [0.2, 0.3, 0.5], ridge=-1)
    with pytest.raises(ValueError, match="ridge of fit_calibration must be >= 0 and finite, got"):
        fit_calibration(logits, [0, 1, 2, 0], [0.2, 0.3, 0.5], ridge=np.nan)
    with pytest.raises(ValueError, match="kind of fit_calibration must be 'bcts' or 'vs'"):
        fit_calibration(logits, [0, 1, 2, 0], [0.2, 0.3, 0.5], kind="ts")  # type: ignore[arg-type]

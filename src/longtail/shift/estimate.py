"""The class mix of unlabelled data, from a model's logits: estimate, interval and test."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.shift.bootstrap import intervals, resample_weights, shift_test
from longtail.shift.calibration import Calibration, Kind, fit_calibration
from longtail.shift.em import default_strength
from longtail.shift.posterior import Logits, as_labels, as_logits
from longtail.shift.priors import Prior, probabilities
from longtail.shift.solvers import Likelihood, Moments, Problem

Method = Literal["em", "bbse", "bbse_soft", "rlls"]
# Penalty of the calibration, a normal prior of standard deviation 1 on log scale and bias.
RIDGE = 1.0


@dataclass(frozen=True)
class PriorEstimate:
    """What `estimate_prior` found.

    Attributes:
        prior: (num_classes,), float64, the mix to use: `estimated` where there is a shift, else
            the source prior, exactly as given.
        estimated: (num_classes,), float64, what the method found, whatever the test says.
        interval: (num_classes, 2), float64, 95% interval of each class's probability in the
            population that the target was drawn from; NaN when none was asked for.
        shifted: whether `p_value` is below the level.
        p_value: of the hypothesis that the target has the source prior.
        regularised: whether a confusion matrix could not be inverted and RLLS answered instead.
        calibration: what was applied to the logits before estimating.
    """

    prior: Tensor
    estimated: Tensor
    interval: Tensor
    shifted: bool
    p_value: float
    regularised: bool
    calibration: Calibration


def estimate_prior(
    source_logits: Logits | None,
    source_labels: ArrayLike | Tensor | None,
    target_logits: Logits,
    expressed: Prior,
    method: Method = "em",
    *,
    source_prior: Prior | None = None,
    calibration: Literal["auto", "bcts", "vs", "none"] | Calibration = "auto",
    strength: float | None = None,
    resamples: int = 200,
    interval: bool = True,
    level: float = 0.05,
    generator: torch.Generator | None = None,
) -> PriorEstimate:
    """Class mix of unlabelled data, with an interval for every class and a test for no shift.

    Label shift is assumed: p(x | class) is the same for source and target. Three priors have a
    part. `expressed` is what the logits express. The mix of `source_labels` may be any (a balanced
    validation set of a long-tailed model, say): it is divided out. `source_prior` is the mix that
    holds until the data speak against it: the hypothesis that is tested, the answer when it is not
    rejected, and what few samples are drawn towards. By default it is `expressed`, so that a model
    is left as it is, bit for bit, unless there is evidence for a change.

    Methods: `em` maximises the likelihood (Saerens et al. 2002; see `em_prior`) and is the one to
    use; `bbse` and `bbse_soft` invert the confusion matrix of predicted classes or of posteriors
    (Lipton et al. 2018; see `bbse_prior`); `rlls` is the regularised form of `bbse_soft`
    (Azizzadenesheli et al. 2019; see `rlls_prior`) and answers for both where the matrix cannot be
    inverted: its condition number is above 1e4, or there are more than 2,048 classes. All work on
    logits corrected by BCTS or VS (Alexandari et al. 2020; see `fit_calibration`).

    Few samples: the result is drawn towards `source_prior` as if `strength` more samples had been
    seen with that mix (a Dirichlet prior with 1 + strength * source_prior). The interval is drawn
    about an estimate with a tenth of that pull, so it may leave `estimated` out where samples are
    fewer than classes. A class without a
    source sample keeps a calibration bias of 0, and its column of the confusion matrix is the one
    that the model expects. With one target sample nothing is tested: `shifted` is False.

    Args:
        source_logits: (source samples, num_classes), labelled samples that the model was not
            trained on; None, together with `source_labels`, for `em` on uncalibrated logits.
        source_labels: (source samples,), class index of each.
        target_logits: (samples, num_classes), unlabelled.
        expressed: the prior that the logits express.
        method: see above.
        source_prior: see above; 0 only where `expressed` is 0 or the class is ruled out.
        calibration: `auto` (by sample size, see `fit_calibration`), `bcts`, `vs`, `none`, or a
            fitted one.
        strength: pseudo-samples of `source_prior`, 0 or more; by default 2 a class, divided by the
            target samples a class (see `default_strength`).
        resamples: draws of the bootstrap; 0 for no interval and no test (`shifted` is then True).
        interval: False saves the time of the intervals, which are then NaN.
        level: of the test.
        generator: on the CPU; the same state gives the same result. Seeded with 0 when not given.
    Raises:
        ValueError: when an input is empty, not finite, or of the wrong shape, a prior is not one,
            or a method that needs a source has none.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(2).repeat(200)
        >>> noise = torch.randn(400, 2, generator=generator)
        >>> logits = 3 * torch.eye(2)[labels] + noise
        >>> found = estimate_prior(logits, labels, logits[labels == 0], [0.5, 0.5])
        >>> found.shifted, bool(found.prior[0] > 0.95)
        (True, True)
    """
    p_expressed = probabilities(expressed, "expressed of estimate_prior")
    reference = _reference(source_prior, p_expressed)
    target = as_logits(target_logits, "target_logits of estimate_prior", len(p_expressed))
    source = _source(source_logits, source_labels, p_expressed, method)
    if strength is None:
        strength = default_strength(len(p_expressed), len(target))
    if strength < 0 or resamples < 0:
        raise ValueError(
            f"strength and resamples of estimate_prior must be >= 0, got {strength}, {resamples}"
        )
    fitted, ridge = _calibration(calibration, source, p_expressed)
    problem = Problem(
        logits=target,
        posteriors=fitted.posteriors(target, p_expressed, reference),
        source_logits=None if source is None else source[0],
        source_labels=None if source is None else source[1],
        expressed=p_expressed,
        reference=reference,
        strength=strength,
        calibration=fitted,
        ridge=ridge,
    )
    generator = generator or torch.Generator().manual_seed(0)
    return solve(problem, method, resamples, interval, level, generator)


def solve(
    problem: Problem,
    method: Method,
    draws: int,
    wanted: bool,
    level: float,
    generator: torch.Generator,
) -> PriorEstimate:
    """What `estimate_prior` does once its inputs are checked and calibrated."""
    # Only the test needs it for EM: two large matrices at a time, and never three.
    confusion = problem.confusion() if draws or method != "em" else None
    solver: Likelihood | Moments
    if method == "em":
        solver = Likelihood(problem)
    else:
        assert confusion is not None
        solver = Moments(problem, method, confusion)
    found, samples = solver.prior, len(problem.posteriors)
    interval = torch.full((len(found), 2), torch.nan, dtype=torch.float64)
    p_value, shifted = float("nan"), True
    if draws:
        on_target = resample_weights(samples, draws, problem.posteriors, generator)
        on_source = None
        if confusion is not None:
            rows = len(confusion.labels)
            on_source = resample_weights(rows, draws, problem.posteriors, generator)
        p_value = shift_test(confusion, problem.posteriors, problem.reference, on_source, on_target)
        del confusion
        shifted = p_value < level
        if wanted:
            interval = intervals(solver.centre, solver.moves(on_source, on_target), samples)
    return PriorEstimate(
        prior=found if shifted else problem.reference,
        estimated=found,
        interval=interval,
        shifted=shifted,
        p_value=p_value,
        regularised=solver.regularised,
        calibration=problem.calibration,
    )


def _reference(source_prior: Prior | None, expressed: Tensor) -> Tensor:
    if source_prior is None:
        return expressed
    prior = probabilities(source_prior, "source_prior of estimate_prior", len(expressed))
    unknown = ((prior > 0) & (expressed == 0)).nonzero().flatten().tolist()
    if unknown:
        raise ValueError(
            f"source_prior of estimate_prior must be 0 where expressed is 0, "
            f"got {prior[unknown[0]].item():g} for class {unknown[0]}"
        )
    return prior


def _source(
    logits: Logits | None, labels: ArrayLike | Tensor | None, expressed: Tensor, method: str
) -> tuple[Tensor, Tensor] | None:
    if method not in get_args(Method):
        raise ValueError(
            f"method of estimate_prior must be one of {get_args(Method)}, got {method!r}"
        )
    if logits is None and labels is None:
        if method != "em":
            raise ValueError(f"method {method!r} of estimate_prior needs source samples, got None")
        return None
    if logits is None or labels is None:
        raise ValueError("source_logits and source_labels of estimate_prior must come together")
    matrix = as_logits(logits, "source_logits of estimate_prior", len(expressed))
    target = as_labels(labels, "source_labels of estimate_prior", len(matrix), len(expressed))
    ruled_out = target[expressed[target] == 0]
    if len(ruled_out):
        raise ValueError(
            f"source_labels of estimate_prior must have probability above 0 in expressed, "
            f"got class {int(ruled_out[0])}"
        )
    return matrix, target.to(matrix.device)


def _calibration(
    wanted: str | Calibration, source: tuple[Tensor, Tensor] | None, expressed: Tensor
) -> tuple[Calibration, float | None]:
    """The calibration, and the penalty it was fitted with to this source, if it was."""
    if isinstance(wanted, Calibration):
        return wanted, None
    kinds: dict[str, Kind | None] = {"auto": None, "bcts": "bcts", "vs": "vs"}
    if wanted not in kinds and wanted != "none":
        raise ValueError(
            f"calibration of estimate_prior must be 'auto', 'bcts', 'vs', 'none' or a "
            f"Calibration, got {wanted!r}"
        )
    if source is None or wanted == "none":
        return Calibration.none(len(expressed)), None
    return fit_calibration(*source, expressed, kinds[wanted], RIDGE), RIDGE

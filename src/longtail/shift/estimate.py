"""The class mix of unlabelled data, from a model's logits: estimate, interval and test."""

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.errors import InputError
from longtail.shift.bootstrap import ShiftTest, intervals, resample_weights
from longtail.shift.calibration import Calibration, Kind, fit_calibration
from longtail.shift.em import default_strength
from longtail.shift.moments import Confusion
from longtail.shift.posterior import Logits, as_labels, as_logits
from longtail.shift.priors import Prior, probabilities
from longtail.shift.solvers import Likelihood, Moments, Problem
from longtail.shift.tilt import Tilts, has_direction

Method = Literal["em", "bbse", "bbse_soft", "rlls"]
# Penalty of the calibration, a normal prior of standard deviation 1 on log scale and bias.
RIDGE = 1.0
# Source samples of a class from which its column of the confusion matrix shows its own noise.
ENOUGH = 10


@dataclass(frozen=True)
class PriorEstimate:
    """What `estimate_prior` found.

    Attributes:
        prior: (num_classes,), float64, the mix to use: `estimated` where there is a shift, else
            the source prior, exactly as given.
        estimated: (num_classes,), float64, what the method found, whatever the test says.
        tilted: (num_classes,), float64, the nearest of source_prior * training_prior^power; the
            source prior where there was none to seek.
        power: of `tilted`; 0 where there was none to seek.
        interval: (num_classes, 2), float64, 95% interval of each class's probability in the
            population that the target was drawn from; NaN when none was asked for.
        shifted: whether `p_value` is below the level.
        p_value: of the hypothesis that the target has the source prior.
        regularised: whether a confusion matrix could not be inverted and RLLS answered instead.
        calibration: what was applied to the logits before estimating.
    """

    prior: Tensor
    estimated: Tensor
    tilted: Tensor
    power: float
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
    training_prior: Prior | None = None,
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

    Between "no shift" and "any mix at all" lies the shift that long-tailed data mostly meet: the
    classes that were rare in training are less rare, or more. Its mixes are source_prior *
    training_prior^power, and the one number is found from moments, well even where samples are
    fewer than classes (see `Tilts`). The nearest of them is what a free estimate is drawn towards.
    It needs source samples and a training prior that is not uniform.

    Methods: `em` maximises the likelihood (Saerens et al. 2002; see `em_prior`) and is the one to
    use; `bbse` and `bbse_soft` invert the confusion matrix of predicted classes or of posteriors
    (Lipton et al. 2018; see `bbse_prior`); `rlls` is the regularised form of `bbse_soft`
    (Azizzadenesheli et al. 2019; see `rlls_prior`) and answers for both where the matrix cannot be
    inverted: its condition number is above 1e4, or there are more than 2,048 classes. All work on
    logits corrected by BCTS or VS (Alexandari et al. 2020; see `fit_calibration`).

    Few samples: the result is drawn towards `tilted` as if `strength` more samples had been seen
    with that mix (a Dirichlet prior with 1 + strength * tilted). The interval is drawn about an
    estimate with far less pull, so it may leave `estimated` out where samples are few. A class
    without a source sample keeps a calibration bias of 0, and its column of the confusion matrix is
    the one that the model expects. With one target sample nothing is tested: `shifted` is False.
    The intervals of `bbse`, `bbse_soft` and `rlls` are too narrow where a class has fewer than ten
    source samples, since nobody knows its column then; a warning says so.

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
        training_prior: class mix of the training set; `expressed` when not given. Worth giving for
            a model whose logits express the uniform prior.
        strength: pseudo-samples of `tilted`, 0 or more; found by moments when not given: many where
            the target is near that mix, few where it is not (see `ShiftTest.strength`), or, without
            a source or resamples, `default_strength`.
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
    training = p_expressed
    if training_prior is not None:
        name = "training_prior of estimate_prior"
        training = probabilities(training_prior, name, len(p_expressed))
    target = as_logits(target_logits, "target_logits of estimate_prior", len(p_expressed))
    if len(p_expressed) < 2:
        raise InputError("expressed of estimate_prior must have 2 classes or more, got 1")
    source = _source(source_logits, source_labels, p_expressed, method)
    if (strength or 0) < 0 or resamples < 0:
        raise InputError(
            f"strength and resamples of estimate_prior must be >= 0, got {strength}, {resamples}"
        )
    fitted, ridge = _calibration(calibration, source, p_expressed)
    posteriors = fitted.posteriors(target, p_expressed, reference)
    confusion = None
    if source is not None and (resamples or strength != 0 or method != "em"):
        features = fitted.posteriors(source[0], p_expressed, reference).to(posteriors)
        confusion = Confusion(features, source[1].to(features.device), features)
    generator = generator or torch.Generator().manual_seed(0)
    on_target = resample_weights(len(target), resamples, posteriors, generator)
    on_source = None
    if confusion is not None:
        on_source = resample_weights(len(confusion.labels), resamples, posteriors, generator)
    test = ShiftTest(confusion, posteriors, None, on_source, on_target)
    tilts = None
    if confusion is not None and has_direction(training):
        tilts = Tilts(reference, training, confusion)
    standing = _stand(test, reference, tilts, strength)
    problem = Problem(
        logits=target,
        posteriors=posteriors,
        source=source,
        expressed=p_expressed,
        reference=reference,
        towards=standing.tilted,
        strength=standing.strength,
        calibration=fitted,
        ridge=ridge,
    )
    solver: Likelihood | Moments
    if method == "em":
        solver = Likelihood(problem)
    else:
        assert confusion is not None
        solver = Moments(problem, method, confusion)
    found = solver.prior
    bounds = torch.full((len(found), 2), torch.nan, dtype=torch.float64)
    # Two large matrices at a time, and never three.
    del test, confusion
    if interval and resamples:
        if method != "em":
            _warn_of_few(source, reference)
        moves = solver.moves(on_source, on_target)
        bounds = intervals(solver.centre, moves, len(target), solver.pull)
    shifted = not standing.p_value >= level  # also where nothing was tested
    return PriorEstimate(
        prior=found if shifted else reference,
        estimated=found,
        tilted=standing.tilted,
        power=standing.power,
        interval=bounds,
        shifted=shifted,
        p_value=standing.p_value,
        regularised=solver.regularised,
        calibration=fitted,
    )


@dataclass(frozen=True)
class _Standing:
    """What is known before a free estimate: see `PriorEstimate` for the names."""

    power: float
    tilted: Tensor
    strength: float
    p_value: float = torch.nan


def _stand(
    test: ShiftTest, reference: Tensor, tilts: Tilts | None, strength: float | None
) -> _Standing:
    power, tilted = (0.0, reference) if tilts is None else tilts.nearest(test.mean, test.samples)
    fallback = default_strength(len(reference), test.samples) if strength is None else strength
    if not test.noise.shape[1]:
        return _Standing(power, tilted, fallback)
    if strength is None and test.confusion is not None and test.samples > 1:
        fallback = test.strength(tilted)
    p_value = test.p_value(reference, None if tilts is None else tilts.slope)
    return _Standing(power, tilted, fallback, p_value)


def _warn_of_few(source: tuple[Tensor, Tensor] | None, reference: Tensor) -> None:
    assert source is not None
    counts = torch.bincount(source[1], minlength=len(reference))
    fewest = int(counts[reference.to(counts.device) > 0].min())
    if fewest < ENOUGH:
        warnings.warn(
            f"source_labels of estimate_prior has a class with {fewest} samples; below {ENOUGH} "
            "the intervals of bbse, bbse_soft and rlls are too narrow, those of em are not",
            stacklevel=3,
        )


def _reference(source_prior: Prior | None, expressed: Tensor) -> Tensor:
    if source_prior is None:
        return expressed
    prior = probabilities(source_prior, "source_prior of estimate_prior", len(expressed))
    unknown = ((prior > 0) & (expressed == 0)).nonzero().flatten().tolist()
    if unknown:
        raise InputError(
            f"source_prior of estimate_prior must be 0 where expressed is 0, "
            f"got {prior[unknown[0]].item():g} for class {unknown[0]}"
        )
    return prior


def _source(
    logits: Logits | None, labels: ArrayLike | Tensor | None, expressed: Tensor, method: str
) -> tuple[Tensor, Tensor] | None:
    if method not in get_args(Method):
        raise InputError(
            f"method of estimate_prior must be one of {get_args(Method)}, got {method!r}"
        )
    if logits is None and labels is None:
        if method != "em":
            raise InputError(f"method {method!r} of estimate_prior needs source samples, got None")
        return None
    if logits is None or labels is None:
        raise InputError("source_logits and source_labels of estimate_prior must come together")
    matrix = as_logits(logits, "source_logits of estimate_prior", len(expressed))
    target = as_labels(labels, "source_labels of estimate_prior", len(matrix), len(expressed))
    ruled_out = target[expressed[target] == 0]
    if len(ruled_out):
        raise InputError(
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
        raise InputError(
            f"calibration of estimate_prior must be 'auto', 'bcts', 'vs', 'none' or a "
            f"Calibration, got {wanted!r}"
        )
    if source is None or wanted == "none":
        return Calibration.none(len(expressed)), None
    return fit_calibration(*source, expressed, kinds[wanted], RIDGE), RIDGE

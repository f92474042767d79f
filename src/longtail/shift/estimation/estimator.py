"""An estimator of class priors, prepared once from the source samples and used for any target."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.shift.estimation.bootstrap import ShiftTest, intervals, resample_weights
from longtail.shift.estimation.calibration import Calibration, Kind, fit_calibration
from longtail.shift.estimation.em import default_strength
from longtail.shift.estimation.moments import Confusion
from longtail.shift.estimation.solvers import Likelihood, Moments, Problem
from longtail.shift.estimation.tilt import Tilts, has_direction

Method = Literal["em", "bbse", "bbse_soft", "rlls"]
# Penalty of the calibration: a normal prior with standard deviation 1 on log scale and bias.
RIDGE = 1.0


@dataclass(frozen=True)
class PriorEstimate:
    """Result of `estimate_prior`.

    Attributes:
        prior: (num_classes,), float64, the class prior to use: `estimated` if a shift was found,
            else the source prior, exactly as given.
        estimated: (num_classes,), float64, the estimate of the method, whatever the test says.
        tilted: (num_classes,), float64, the nearest of source_prior * training_prior^power; the
            source prior if no power was estimated.
        power: power of `tilted`; 0 if none was estimated.
        interval: (num_classes, 2), float64, 95% interval of each class's probability in the
            population that the target was drawn from; NaN if not requested.
        shifted: whether `p_value` is below the level.
        p_value: p-value of the hypothesis that the target has the source prior.
        regularised: whether a confusion matrix could not be inverted and RLLS answered instead.
        calibration: calibration applied to the logits before estimating.
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


@dataclass(frozen=True)
class Source:
    """Labelled samples, which may be rows of a larger matrix.

    Attributes:
        logits: (rows, num_classes).
        labels: (samples,), int64, on the device of `logits`.
        indices: (samples,), int64, rows of `logits` that are the samples; None for all.
    """

    logits: Tensor
    labels: Tensor
    indices: Tensor | None = None

    @property
    def samples(self) -> Tensor:
        """Logits of the samples, (samples, num_classes)."""
        return self.logits if self.indices is None else self.logits[self.indices]


class Estimator:
    """Estimates the class prior of any number of targets from one labelled source.

    Calibration, posteriors of the source and its resamples are computed once. The same target
    gives the same estimate, whatever was estimated before.

    Args:
        source: labelled samples; None for `em` on uncalibrated logits.
        expressed: (num_classes,), float64, prior that the logits express.
        reference: (num_classes,), float64, hypothesis of the test.
        training: (num_classes,), float64, direction of the likeliest shifts (see `Tilts`).
        method: see `estimate_prior`.
        calibration: `auto`, `bcts`, `vs`, `none` or a fitted one.
        strength: see `estimate_prior`.
        resamples: draws of the bootstrap.
        level: level of the test.
        generator: on the CPU; default: seeded with 0.

    Attributes:
        calibration: fitted or given calibration.
        source_posteriors: (rows, num_classes), of all rows of `source.logits`, calibrated, under
            `reference`; None without a source.
    """

    def __init__(
        self,
        source: Source | None,
        expressed: Tensor,
        reference: Tensor,
        training: Tensor,
        *,
        method: Method = "em",
        calibration: str | Calibration = "auto",
        strength: float | None = None,
        resamples: int = 200,
        level: float = 0.05,
        generator: torch.Generator | None = None,
    ) -> None:
        if method not in get_args(Method):
            raise InputError(
                f"method of estimate_prior must be one of {get_args(Method)}, got {method!r}"
            )
        if source is None and method != "em":
            raise InputError(f"method {method!r} of estimate_prior needs source samples, got None")
        self.source, self.expressed, self.reference = source, expressed, reference
        self.method, self.strength, self.level = method, strength, level
        self.resamples = resamples
        self.calibration, self.ridge = _calibration(calibration, source, expressed)
        self.confusion: Confusion | None = None
        self.tilts: Tilts | None = None
        self._on_source: Tensor | None = None
        self.source_posteriors: Tensor | None = None
        generator = generator or torch.Generator().manual_seed(0)
        if source is not None and (resamples or strength != 0 or method != "em"):
            features = self.posteriors(source.logits)
            self.source_posteriors = features
            labels = source.labels.to(features.device)
            self.confusion = Confusion(features, labels, features, source.indices)
            self._on_source = resample_weights(len(labels), resamples, features, generator)
            if has_direction(training):
                self.tilts = Tilts(reference, training, self.confusion)
        self._state = generator.get_state()

    def posteriors(self, logits: Tensor) -> Tensor:
        """Calibrated class probabilities (samples, num_classes) under `reference`."""
        return self.calibration.posteriors(logits, self.expressed, self.reference)

    def estimate(
        self, posteriors: Tensor, indices: Tensor | None = None, logits: Tensor | None = None
    ) -> PriorEstimate:
        """Class prior of a target.

        Args:
            posteriors: (rows, num_classes), as `posteriors` returns them; overwritten if `logits`
                are given.
            indices: (samples,), int64, rows that are the target; default: all.
            logits: (rows, num_classes), raw logits of the target, for the intervals; without them
                the intervals are NaN.
        """
        generator = torch.Generator()
        generator.set_state(self._state)
        samples = len(posteriors) if indices is None else len(indices)
        on_target = resample_weights(samples, self.resamples, posteriors, generator)
        test = ShiftTest(self.confusion, posteriors, indices, self._on_source, on_target)
        power, tilted = 0.0, self.reference
        if self.tilts is not None:
            power, tilted = self.tilts.nearest(test.mean, samples)
        strength = self._strength(test, tilted)
        p_value = torch.nan
        if self.resamples:
            p_value = test.p_value(self.reference, None if self.tilts is None else self.tilts.slope)
        # Where nothing was tested, the estimate is used.
        shifted = not p_value >= self.level
        solver = self._solver(posteriors, indices, tilted, strength, logits)
        bounds = torch.full((len(tilted), 2), torch.nan, dtype=torch.float64)
        del test
        if logits is not None and self.resamples:
            moves = solver.moves(self._on_source, on_target)
            bounds = intervals(solver.centre, moves, samples, solver.pull)
        return PriorEstimate(
            prior=solver.prior if shifted else self.reference,
            estimated=solver.prior,
            tilted=tilted,
            power=power,
            interval=bounds,
            shifted=shifted,
            p_value=p_value,
            regularised=solver.regularised,
            calibration=self.calibration,
        )

    def _strength(self, test: ShiftTest, tilted: Tensor) -> float:
        if self.strength is not None:
            return self.strength
        if test.confusion is not None and test.samples > 1 and self.resamples:
            return test.strength(tilted)
        return default_strength(len(tilted), test.samples)

    def _solver(
        self,
        posteriors: Tensor,
        indices: Tensor | None,
        tilted: Tensor,
        strength: float,
        logits: Tensor | None,
    ) -> Likelihood | Moments:
        source = None if self.source is None else (self.source.samples, self.source.labels)
        problem = Problem(
            logits=logits,
            posteriors=posteriors,
            indices=indices,
            source=source if logits is not None else None,
            expressed=self.expressed,
            reference=self.reference,
            towards=tilted,
            strength=strength,
            calibration=self.calibration,
            ridge=self.ridge,
        )
        if self.method == "em":
            return Likelihood(problem)
        assert self.confusion is not None
        return Moments(problem, self.method, self.confusion)


def _calibration(
    wanted: str | Calibration, source: Source | None, expressed: Tensor
) -> tuple[Calibration, float | None]:
    """The calibration, and the penalty of its fit; None if it was not fitted to this source."""
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
    fitted = fit_calibration(source.samples, source.labels, expressed, kinds[wanted], RIDGE)
    return fitted, RIDGE

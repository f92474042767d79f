"""An estimator of class priors, prepared once from the source samples and used for any target."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.ranges import check_range
from longtail.shift.estimation.belief import Belief, believe
from longtail.shift.estimation.calibration import Calibration, Kind, fit_calibration
from longtail.shift.estimation.confusion import Confusion
from longtail.shift.estimation.em import default_strength, em_prior, em_variance
from longtail.shift.estimation.interval import ConfidenceRegion, intervals
from longtail.shift.estimation.kdey import kdey_prior
from longtail.shift.estimation.likelihood import DENSE
from longtail.shift.estimation.moments import moment_prior
from longtail.shift.estimation.response import Response
from longtail.shift.estimation.shift_test import Expected, Resampled, p_value, resample_weights
from longtail.shift.estimation.tilt import Tilts, has_direction

Method = Literal["em", "bbse", "bbse_soft", "rlls", "kdey"]
# Source samples per class from which the intervals were shown to be valid.
ENOUGH = 10
# Samples that the estimate assigns to a class without any.
LEAST = 0.01


@dataclass(frozen=True)
class PriorEstimate:
    """Result of `estimate_prior`.

    Attributes:
        prior: (num_classes,), float64, the class prior to use: `estimated` if a shift was found,
            else the source prior, exactly as given.
        estimated: (num_classes,), float64, the estimate of the method, regardless of the test.
        tilted: (num_classes,), float64, the nearest of source_prior * training_prior^power; the
            source prior if no power was estimated.
        power: power of `tilted`; 0 if none was estimated.
        interval: (num_classes, 2), float64, 95% interval of each class's probability in the
            population that the target was drawn from; contains `estimated` and, if no shift was
            found, `prior`. NaN if not requested.
        region: joint 95% confidence region of all classes, centred on `estimated`; None if no
            interval was requested, for a single target sample, and above 2,048 classes.
        reliable: whether intervals and region can be expected to hold: there is a source with at
            least 10 samples of every class, at most 2,048 classes, and more than one target sample.
        shifted: whether `p_value` is below the level.
        p_value: p-value of the hypothesis that the target has the source prior; 1 if there are too
            few samples to test it, NaN if no test was requested.
        regularised: whether a confusion matrix could not be inverted and RLLS was used instead.
        calibration: calibration applied to the logits before estimating.
    """

    prior: Tensor
    estimated: Tensor
    tilted: Tensor
    power: float
    interval: Tensor
    region: ConfidenceRegion | None
    reliable: bool
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

    The calibration, the posteriors of the source and its resamples are computed once. The same
    target gives the same estimate, whatever was estimated before.

    Args:
        source: labelled samples; None for `em` on uncalibrated logits.
        expressed: (num_classes,), float64, prior that the logits express.
        reference: (num_classes,), float64, hypothesis of the test.
        training: (num_classes,), float64, direction of the likeliest shifts (see `Tilts`).
        method: see `estimate_prior`.
        calibration: `auto`, `bcts`, `vs`, `none` or a fitted one.
        strength: see `estimate_prior`.
        resamples: draws of the test; 0 for no test.
        level: level of the test, in (0, 1).
        generator: generator on the CPU; default: seeded with 0.

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
        check_range("level of estimate_prior", level, above=0, below=1)
        if source is None and method != "em":
            raise InputError(f"method {method!r} of estimate_prior needs source samples, got None")
        self.source, self.expressed, self.reference = source, expressed, reference
        # A class that is missing in training counts as the rarest.
        self.training = training.clamp(min=training[training > 0].min())
        self.method, self.strength = method, strength
        self.resamples, self.level = resamples, level
        self.calibration = _calibration(calibration, source, expressed, method)
        self.tilts = Tilts(reference, self.training) if has_direction(training) else None
        self.confusion: Confusion | None = None
        self.source_posteriors: Tensor | None = None
        self._on_source: Tensor | None = None
        generator = generator or torch.Generator().manual_seed(0)
        if source is not None:
            features = self.posteriors(source.logits)
            self.source_posteriors = features
            labels = source.labels.to(features.device)
            self.confusion = Confusion(features, labels, features, source.indices)
            if len(expressed) > DENSE:
                self._on_source = resample_weights(len(labels), resamples, features, generator)
        self._state = generator.get_state()

    def posteriors(self, logits: Tensor) -> Tensor:
        """Calibrated class probabilities (samples, num_classes) under `reference`."""
        return self.calibration.posteriors(logits, self.expressed, self.reference)

    def estimate(
        self, posteriors: Tensor, indices: Tensor | None = None, interval: bool = True
    ) -> PriorEstimate:
        """Class prior of a target.

        Args:
            posteriors: (rows, num_classes), as `posteriors` returns them.
            indices: (samples,), int64, rows that are the target; default: all.
            interval: whether to compute intervals and the region.
        """
        samples = len(posteriors) if indices is None else len(indices)
        bounds, region = torch.full((len(self.reference), 2), torch.nan, dtype=torch.float64), None
        if samples == 1:
            if interval:
                bounds = intervals(self.reference, torch.zeros_like(self.reference), 1)
            found = _Found(1.0, 0.0, self.reference, 0.0, None)
            return self._result(self.reference, found, bounds, None, False)
        dense = len(self.reference) <= DENSE
        found = (self._by_response if dense else self._by_resamples)(posteriors, indices)
        tilted, belief, regularised = found.tilted, found.belief, False
        strength = found.strength if self.strength is None else self.strength
        if self.method == "em" and self.strength is None and belief is not None:
            estimated = belief.projected(LEAST / samples)
        elif self.method == "em":
            estimated = em_prior(posteriors, self.reference, strength, tilted, indices)
        else:
            estimated, regularised = self._by_moments(posteriors, indices)
            strength = self.strength or 0.0
            estimated = (samples * estimated + strength * tilted) / (samples + strength)
        if interval and belief is not None:
            region = ConfidenceRegion(estimated, belief.error_of(estimated), samples)
            variance = region.covariance.diagonal()
            bounds = intervals(estimated, variance, samples, belief.concentration)
        elif interval:
            rows = posteriors, self.reference, estimated
            bounds = intervals(estimated, em_variance(*rows, strength, tilted, indices), samples)
        return self._result(estimated, found, bounds, region, regularised)

    def _result(
        self,
        estimated: Tensor,
        found: "_Found",
        bounds: Tensor,
        region: ConfidenceRegion | None,
        regularised: bool,
    ) -> PriorEstimate:
        # If no test was requested, the estimate is used.
        shifted = not found.p_value >= self.level
        prior = estimated if shifted else self.reference
        # A hypothesis that is not rejected is not excluded by the interval. NaN is kept.
        low, high = torch.minimum(bounds[:, 0], prior), torch.maximum(bounds[:, 1], prior)
        return PriorEstimate(
            prior=prior,
            estimated=estimated,
            tilted=found.tilted,
            power=found.power,
            interval=torch.stack([low, high], dim=1),
            region=region,
            reliable=region is not None and self._enough(),
            shifted=shifted,
            p_value=found.p_value,
            regularised=regularised,
            calibration=self.calibration,
        )

    def _by_response(self, posteriors: Tensor, indices: Tensor | None) -> "_Found":
        """Test, nearest tilted prior and belief, from the mean features of up to 2,048 classes."""
        possible = self.reference > 0
        response = Response(*self._possible_rows(posteriors, indices, possible))
        reference, training = self.reference[possible], self.training[possible]
        tilts = Tilts(reference, training) if has_direction(training) else None
        p, power, tilted = torch.nan, 0.0, reference
        if self.resamples:
            normal = torch.randn(
                len(reference), self.resamples, generator=self._generator(), dtype=torch.float64
            )
            slope = None if tilts is None else response.expected(tilts.slope)
            difference = response.mean - response.expected(reference)
            noise = response.noise(reference).shape(normal.to(difference))
            p = p_value(difference, noise, reference, response.samples, slope)
        if tilts is not None:
            expected = response.expected(tilts.priors(tilts.powers))
            power, tilted = tilts.nearest(expected, response.mean, response.samples)
        spread = torch.zeros_like(self.reference)
        spread[possible] = tilted
        belief = believe(response, reference, training).spread(possible)
        return _Found(p, power, spread, 0.0, belief)

    def _possible_rows(
        self, posteriors: Tensor, indices: Tensor | None, possible: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Arguments of `Response`, without the classes that the reference rules out."""
        features, labels, rows = self.source_posteriors, None, None
        if self.confusion is not None:
            labels, rows = self.confusion.labels, self.confusion.indices
        if possible.all():
            return posteriors, self.reference, indices, features, labels, rows
        mask = possible.to(posteriors.device)
        if features is not None and labels is not None:
            features, kept = features[:, mask], mask[labels]
            rows = kept.nonzero().flatten() if rows is None else rows[kept]
            labels = (mask.cumsum(0) - 1)[labels[kept]]
        return posteriors[:, mask], self.reference[possible], indices, features, labels, rows

    def _by_resamples(self, posteriors: Tensor, indices: Tensor | None) -> "_Found":
        """Test, nearest tilted prior and strength of the shrinkage towards it, for many classes."""
        samples = len(posteriors) if indices is None else len(indices)
        on_target = resample_weights(samples, self.resamples, posteriors, self._generator())
        sample, expected = Resampled(posteriors, indices, on_target), self._expected
        p, power, tilted = torch.nan, 0.0, self.reference
        if self.tilts is not None and expected.tilted is not None:
            power, tilted = self.tilts.nearest(expected.tilted, sample.mean, samples)
        if self.resamples:
            difference = sample.mean - expected.mean.to(sample.mean)
            noise = sample.noise - expected.noise
            p = p_value(difference, noise, self.reference, samples, expected.slope)
        strength = default_strength(len(tilted), samples)
        if self.confusion is not None and self._on_source is not None and self.resamples:
            strength = sample.strength(tilted, self.confusion, self._on_source)
        return _Found(p, power, tilted, strength, None)

    @cached_property
    def _expected(self) -> Expected:
        """What is expected of any target of many classes under the reference."""
        if self.confusion is None or self._on_source is None:
            return Expected(self.reference, torch.zeros(()))
        return Expected.of(self.reference, self.tilts, self.confusion, self._on_source)

    def _generator(self) -> torch.Generator:
        generator = torch.Generator()
        generator.set_state(self._state)
        return generator

    def _by_moments(self, posteriors: Tensor, indices: Tensor | None) -> tuple[Tensor, bool]:
        confusion = self.confusion
        assert confusion is not None
        if self.method != "kdey":
            return moment_prior(self.method, posteriors, indices, confusion, self.reference)
        source, labels = confusion.features, confusion.labels
        source = source if confusion.indices is None else source[confusion.indices]
        target = posteriors if indices is None else posteriors[indices]
        return kdey_prior(source, labels, target.to(source)), False

    def _enough(self) -> bool:
        """Whether the source has enough samples of every class for intervals to be reliable."""
        if self.confusion is None:
            return False
        counts = self.confusion.counts.cpu()
        return bool((counts[self.reference > 0] >= ENOUGH).all())


@dataclass(frozen=True)
class _Found:
    """What is known about a target before its estimate; see `PriorEstimate` for the names.

    Attributes:
        strength: strength of the shrinkage towards `tilted` if there is no belief.
        belief: None above 2,048 classes.
    """

    p_value: float
    power: float
    tilted: Tensor
    strength: float
    belief: Belief | None


def _calibration(
    wanted: str | Calibration, source: Source | None, expressed: Tensor, method: str
) -> Calibration:
    if isinstance(wanted, Calibration):
        return wanted
    kinds: dict[str, Kind | None] = {"auto": None, "bcts": "bcts", "vs": "vs"}
    if wanted not in kinds and wanted != "none":
        raise InputError(
            f"calibration of estimate_prior must be 'auto', 'bcts', 'vs', 'none' or a "
            f"Calibration, got {wanted!r}"
        )
    # Kernel densities replace the calibration.
    if source is None or wanted == "none" or (wanted == "auto" and method == "kdey"):
        return Calibration.none(len(expressed))
    return fit_calibration(source.samples, source.labels, expressed, kinds[wanted])

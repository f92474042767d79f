"""The two families of estimators behind `estimate_prior`: likelihood and moments."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from longtail.shift.estimation.bootstrap import calibration_moves, em_moves
from longtail.shift.estimation.calibration import Calibration, swap
from longtail.shift.estimation.em import default_strength, em_prior
from longtail.shift.estimation.likelihood import LabelLikelihood, solve_gram
from longtail.shift.estimation.moments import (
    Confusion,
    bbse_prior,
    collect,
    invertible,
    rlls_prior,
    rlls_radius,
)

# The interval of EM is drawn about an estimate that is pulled by this part of `default_strength` at
# the most: it is to show what the data say, and a pull that helps the estimate would make it miss.
LOOSE = 0.1


@dataclass(frozen=True)
class Problem:
    """What every method starts from.

    Attributes:
        logits: (samples, num_classes), of the target; None if no interval is wanted.
        posteriors: (rows, num_classes), of the target, calibrated, under `reference`.
        indices: (samples,), int64, rows of `posteriors` that are the target; None for all.
        source: logits (source samples, num_classes) and labels (source samples,); None without.
        expressed: (num_classes,), float64.
        reference: (num_classes,), float64, the prior to fall back on.
        towards: (num_classes,), float64, the mix that few samples are drawn towards.
        strength: samples that `towards` counts for.
        calibration: applied to the logits.
        ridge: penalty with which `calibration` was fitted to this source; None when it was not.
    """

    logits: Tensor | None
    posteriors: Tensor
    indices: Tensor | None
    source: tuple[Tensor, Tensor] | None
    expressed: Tensor
    reference: Tensor
    towards: Tensor
    strength: float
    calibration: Calibration
    ridge: float | None = None


class Likelihood:
    """EM.

    Attributes:
        prior: (num_classes,), float64, the estimate.
        regularised: False.
    """

    regularised = False

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.prior = em_prior(
            problem.posteriors,
            problem.reference,
            problem.strength,
            problem.towards,
            problem.indices,
        )

    @cached_property
    def centre(self) -> Tensor:
        """What the interval is about, (num_classes,), float64."""
        problem = self.problem
        return em_prior(problem.posteriors, problem.reference, self.loose, problem.towards)

    @property
    def pull(self) -> Tensor:
        """The part of `centre`, (num_classes,), that the samples have no part in."""
        problem = self.problem
        return self.loose / (len(problem.posteriors) + self.loose) * problem.towards

    @property
    def loose(self) -> float:
        """Strength of the pull behind the interval."""
        samples, num_classes = self.problem.posteriors.shape
        return LOOSE * min(self.problem.strength, default_strength(num_classes, samples))

    def moves(self, on_source: Tensor | None, on_target: Tensor) -> Tensor:
        """How `centre` moves under each resample; overwrites the problem's posteriors."""
        problem, calibration = self.problem, None
        assert problem.logits is not None
        if on_source is not None and problem.ridge is not None:
            calibration = self._calibration_moves(on_source)
        return em_moves(
            problem.posteriors,
            problem.reference,
            self.centre,
            self.loose,
            problem.towards,
            on_target,
            problem.logits,
            problem.calibration.scale,
            calibration,
        )

    def _calibration_moves(self, on_source: Tensor) -> Tensor:
        problem, fitted = self.problem, self.problem.calibration
        assert problem.source is not None
        assert problem.ridge is not None
        logits, labels = problem.source
        mix = torch.bincount(labels, minlength=len(self.prior)).double().cpu() / len(labels)
        log_swap = swap(problem.expressed, mix)
        near = LabelLikelihood(logits, labels, log_swap, fitted.scale, fitted.bias, problem.ridge)
        moves = calibration_moves(near, on_source.to(near.posteriors))
        return moves.to(problem.posteriors)


class Moments:
    """BBSE, hard and soft, and RLLS.

    Attributes:
        prior: (num_classes,), float64, the estimate.
        centre: (num_classes,), float64, the same before it is drawn towards another.
        pull: (num_classes,), zeros: nothing draws `centre`.
        regularised: whether RLLS stood in for BBSE.
    """

    def __init__(self, problem: Problem, method: str, confusion: Confusion) -> None:
        posteriors = problem.posteriors
        if problem.indices is not None:
            posteriors = posteriors[problem.indices]
        self.features, self.confusion = posteriors, confusion
        if method == "bbse":
            predicted = confusion.features.argmax(dim=1)
            self.confusion = Confusion(predicted, confusion.labels, confusion.posteriors)
            self.features = posteriors.argmax(dim=1)
        self.reference = problem.reference.to(posteriors)
        self.samples, num_classes = posteriors.shape
        every = posteriors.new_full((self.samples, 1), 1 / self.samples)
        mean = collect(self.features, every, num_classes)[:, 0]
        matrix = self.confusion.matrix
        self.inverted = method != "rlls" and invertible(matrix)
        self.regularised = method != "rlls" and not self.inverted
        self.ridge = 0.0
        if self.inverted:
            found = bbse_prior(matrix, mean)
        else:
            radius = rlls_radius(num_classes, len(confusion.labels))
            found, self.ridge = rlls_prior(matrix, mean, self.reference, radius)
        self.centre = found.double().cpu()
        self.pull = torch.zeros_like(self.centre)
        pulled = self.samples * self.centre + problem.strength * problem.towards
        self.prior = pulled / pulled.sum()

    def moves(self, on_source: Tensor | None, on_target: Tensor) -> Tensor:
        """How `centre` moves under each resample."""
        assert on_source is not None
        matrix, p = self.confusion.matrix, self.reference
        noise = collect(self.features, on_target, len(p)) / self.samples
        noise = noise - self.confusion.noise(on_source, self.centre.to(noise))
        if self.inverted:
            solved: Tensor = torch.linalg.solve(matrix, noise)
            return solved
        scaled = matrix * p
        ridge = torch.full_like(p, self.ridge)
        return p[:, None] * solve_gram(scaled, ridge, scaled.T @ noise)

"""The class mix of unlabelled data, from a model's logits: estimate, interval and test."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.shift.bootstrap import (
    calibration_moves,
    em_moves,
    intervals,
    resample_weights,
    shift_test,
)
from longtail.shift.calibration import Calibration, Kind, fit_calibration, swap
from longtail.shift.em import em_prior
from longtail.shift.likelihood import LabelLikelihood, solve_gram
from longtail.shift.moments import (
    Confusion,
    bbse_prior,
    collect,
    invertible,
    rlls_prior,
    rlls_radius,
)
from longtail.shift.posterior import Logits, as_labels, as_logits
from longtail.shift.priors import Prior, probabilities

Method = Literal["em", "bbse", "bbse_soft", "rlls"]
# Penalty of the calibration, a normal prior of standard deviation 1 on log scale and bias.
RIDGE = 1.0
# Samples a class, on average, that the source prior counts for.
STRENGTH_PER_CLASS = 0.1


@dataclass(frozen=True)
class PriorEstimate:
    """What `estimate_prior` found.

    Attributes:
        prior: (num_classes,), float64, the mix to use: `estimated` where there is a shift, else
            the source prior, exactly as given.
        estimated: (num_classes,), float64, what the method found, whatever the test says.
        interval: (num_classes, 2), float64, 95% interval of each class's probability in the
            population that the target was drawn from; NaN when no resamples were asked for.
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
    seen with that mix (a Dirichlet prior with 1 + strength * source_prior). A class without a
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
        strength: pseudo-samples of `source_prior`, 0 or more; a tenth of a sample a class when not
            given.
        resamples: draws of the bootstrap; 0 for no interval and no test (`shifted` is then True).
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
        strength = STRENGTH_PER_CLASS * len(p_expressed)
    if strength < 0 or resamples < 0:
        raise ValueError(
            f"strength and resamples of estimate_prior must be >= 0, got {strength}, {resamples}"
        )
    fitted = _calibration(calibration, source, p_expressed)
    fits = source is not None and calibration in ("auto", "bcts", "vs")
    solver = _Solver(method, fitted, p_expressed, reference, strength, source, target, fits)
    estimated, regularised = solver.solve()
    if not resamples:
        nothing = torch.full((len(estimated), 2), torch.nan, dtype=torch.float64)
        return PriorEstimate(estimated, estimated, nothing, True, float("nan"), regularised, fitted)
    generator = generator or torch.Generator().manual_seed(0)
    p_value, moves = solver.resample(resamples, generator)
    shifted = p_value < level
    return PriorEstimate(
        prior=estimated if shifted else reference,
        estimated=estimated,
        interval=intervals(estimated, moves, len(target)),
        shifted=shifted,
        p_value=p_value,
        regularised=regularised,
        calibration=fitted,
    )


@dataclass(frozen=True)
class _Source:
    logits: Tensor
    labels: Tensor


class _Solver:
    """One estimate: the posteriors of both samples, the mix found, and how it moves."""

    def __init__(
        self,
        method: Method,
        calibration: Calibration,
        expressed: Tensor,
        reference: Tensor,
        strength: float,
        source: _Source | None,
        target: Tensor,
        fits: bool,
    ) -> None:
        self.method, self.calibration = method, calibration
        self.expressed, self.reference, self.strength = expressed, reference, strength
        self.source, self.samples = source, len(target)
        # A calibration that was not fitted on this source does not move with its resamples.
        self.fits = fits
        self.logits = target
        self.target = calibration.posteriors(target, expressed, reference)
        self.soft = self.confusion = None
        if source is not None:
            features = calibration.posteriors(source.logits, expressed, reference).to(self.target)
            self.soft = self.confusion = Confusion.of(features, source.labels, features)
            if method == "bbse":
                self.confusion = Confusion.of(features.argmax(dim=1), source.labels, features)

    def solve(self) -> tuple[Tensor, bool]:
        """The mix found, and whether RLLS stood in for BBSE."""
        if self.method == "em" or self.confusion is None:
            self.prior = em_prior(self.target, self.reference, self.strength)
            return self.prior, False
        p = self.reference.to(self.target)
        features = self.target.argmax(dim=1) if self.method == "bbse" else self.target
        every = self.target.new_full((self.samples, 1), 1 / self.samples)
        mean = collect(features, every, len(p))[:, 0]
        self.features, self.ridge = features, 0.0
        stands_in = self.method != "rlls" and not invertible(self.confusion.matrix)
        if self.method == "rlls" or stands_in:
            radius = rlls_radius(len(p), len(self.confusion.labels))
            found, self.ridge = rlls_prior(self.confusion.matrix, mean, p, radius)
        else:
            found = bbse_prior(self.confusion.matrix, mean)
        pulled = self.samples * found.double().cpu() + self.strength * self.reference
        self.prior = pulled / pulled.sum()
        return self.prior, stands_in

    def resample(self, draws: int, generator: torch.Generator) -> tuple[float, Tensor]:
        """The p-value of no shift, and how `prior` moves, (num_classes, draws)."""
        on_target = resample_weights(self.samples, draws, self.target, generator)
        on_source = None
        if self.source is not None:
            on_source = resample_weights(len(self.source.labels), draws, self.target, generator)
        p_value = shift_test(self.soft, self.target, self.reference, on_source, on_target)
        if self.method == "em":
            return p_value, self._em_moves(on_source, on_target)
        assert self.confusion is not None
        assert on_source is not None
        noise = collect(self.features, on_target, len(self.prior)) / self.samples
        noise = noise - self.confusion.noise(on_source, self.prior.to(noise))
        return p_value, self._moment_moves(noise)

    def _em_moves(self, on_source: Tensor | None, on_target: Tensor) -> Tensor:
        p, q, fitted = self.reference, self.prior, self.calibration
        if self.source is None or on_source is None or not self.fits:
            return em_moves(
                self.target, p, q, self.strength, on_target, self.logits, fitted.scale, None
            )
        self.soft = self.confusion = None  # room for the next matrix of the same size
        labels = self.source.labels
        mix = torch.bincount(labels, minlength=len(q)).double().cpu() / len(labels)
        log_swap = swap(self.expressed, mix)
        near = LabelLikelihood(
            self.source.logits, labels, log_swap, fitted.scale, fitted.bias, RIDGE
        )
        moves = calibration_moves(near, on_source.to(near.posteriors)).to(self.target)
        del near
        return em_moves(
            self.target, p, q, self.strength, on_target, self.logits, fitted.scale, moves
        )

    def _moment_moves(self, noise: Tensor) -> Tensor:
        assert self.confusion is not None
        matrix = self.confusion.matrix
        if not self.ridge:
            return torch.linalg.solve(matrix, noise)
        p = self.reference.to(matrix)
        scaled = matrix * p
        ridge = torch.full_like(p, self.ridge)
        return p[:, None] * solve_gram(scaled, ridge, scaled.T @ noise)


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
) -> _Source | None:
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
    return _Source(matrix, target.to(matrix.device))


def _calibration(
    wanted: str | Calibration, source: _Source | None, expressed: Tensor
) -> Calibration:
    if isinstance(wanted, Calibration):
        return wanted
    if wanted not in ("auto", "bcts", "vs", "none"):
        raise ValueError(
            f"calibration of estimate_prior must be 'auto', 'bcts', 'vs', 'none' or a "
            f"Calibration, got {wanted!r}"
        )
    if source is None or wanted == "none":
        return Calibration.none(len(expressed))
    kind: Kind | None = None
    if wanted == "bcts" or wanted == "vs":
        kind = wanted
    return fit_calibration(source.logits, source.labels, expressed, kind, RIDGE)

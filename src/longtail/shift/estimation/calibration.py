"""Bias-corrected temperature and vector scaling, fitted on held-out labelled logits."""

from dataclasses import dataclass
from typing import Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.errors import InputError
from longtail.precision import full_precision
from longtail.ranges import check_range
from longtail.shift.estimation.likelihood import LabelLikelihood, centred
from longtail.shift.estimation.posterior import (
    Logits,
    as_labels,
    as_logits,
    row_blocks,
    working_type,
)
from longtail.shift.priors import Prior, probabilities

# Vector scaling has twice as many parameters, so it needs at least this many samples per class.
SAMPLES_FOR_VECTOR = 100

Kind = Literal["bcts", "vs"]


@dataclass(frozen=True)
class Calibration:
    """An affine correction of logits, class by class: scale * logits + bias.

    The result expresses the prior that the logits expressed before.

    Args:
        scale: () one inverse temperature (BCTS), or (num_classes,) one per class (VS), above 0;
            float64. VS works on logits whose row mean has been subtracted.
        bias: (num_classes,), float64, nats.

    Examples:
        >>> halved = Calibration(torch.tensor(0.5), torch.zeros(2))
        >>> halved(torch.tensor([[2.0, 0.0]]))
        tensor([[1., 0.]])
    """

    scale: Tensor
    bias: Tensor

    @classmethod
    def none(cls, num_classes: int) -> "Calibration":
        """Identity calibration."""
        one = torch.ones((), dtype=torch.float64)
        return cls(one, torch.zeros(num_classes, dtype=torch.float64))

    def __call__(self, logits: Tensor) -> Tensor:
        """Corrected logits (samples, num_classes), in the type of the input."""
        wide = centred(full_precision(logits), self.scale)
        return (wide * self.scale.to(wide) + self.bias.to(wide)).to(logits.dtype)

    def posteriors(self, logits: Tensor, expressed: Tensor, prior: Tensor) -> Tensor:
        """Class probabilities (samples, num_classes) under `prior`, calibrated.

        Args:
            logits: (samples, num_classes), finite, expressing `expressed`.
            expressed: (num_classes,), float64.
            prior: (num_classes,), float64; 0 rules a class out.

        Returns: one new matrix in the `working_type` of the logits; rows sum to 1.
        """
        dtype, device = working_type(logits), logits.device
        scale = self.scale.to(device, dtype)
        offset = (self.bias + swap(expressed, prior)).to(device, dtype)
        result = torch.empty(logits.shape, dtype=dtype, device=device)
        for rows in row_blocks(logits):
            block = centred(logits[rows].to(dtype), scale)
            result[rows] = torch.addcmul(offset, block, scale).softmax(dim=1)
        return result


def swap(expressed: Tensor, prior: Tensor) -> Tensor:
    """Log prior - log expressed; -inf, and no warning, for a class that either rules out."""
    return torch.where((expressed > 0) & (prior > 0), prior.log() - expressed.log(), -torch.inf)


def fit_calibration(
    logits: Logits,
    labels: ArrayLike | Tensor,
    expressed: Prior,
    kind: Kind | None = None,
    ridge: float = 1.0,
) -> Calibration:
    """Bias-corrected temperature scaling (BCTS) or vector scaling (VS) by penalised likelihood.

    Alexandari, Kundaje and Shrikumar, Maximum likelihood with bias-corrected calibration is
    hard-to-beat at label shift adaptation, ICML 2020, arXiv 1901.06852, section 2. Minimises the
    cross-entropy of the labels, summed over the samples and taken under the class prior of `labels`
    (which need not be the one the model was trained under), plus
    ridge / 2 * (sum of squares of log scale and bias).
    Differences from the paper: that penalty, a normal prior with standard deviation 1 / sqrt(ridge)
    on each parameter, which keeps the fit well-defined if there are many classes, or classes that
    are missing or perfectly separated; `ridge=0` is the paper's.

    Args:
        logits: (samples, num_classes), held-out, expressing `expressed`.
        labels: (samples,), class index of each.
        expressed: prior of the logits, num_classes long.
        kind: `bcts` (one temperature) or `vs` (one per class), both with a bias per class; default:
            `vs` with 100 samples per class or more, else `bcts`.
        ridge: strength of the penalty, 0 or more.
    Raises: ValueError: when an input has the wrong shape, is not finite, or a label has probability
        0 under `expressed`.

    Examples:
        >>> logits = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
        >>> fitted = fit_calibration(logits, [0, 0, 1, 1], [0.5, 0.5], kind="bcts")
        >>> bool(fitted.scale < 1)  # three of four right is less sure than a margin of 3
        True
    """
    check_range("ridge of fit_calibration", ridge, least=0)
    prior = probabilities(expressed, "expressed of fit_calibration")
    num_classes = len(prior)
    matrix = as_logits(logits, "logits of fit_calibration", num_classes)
    target = as_labels(labels, "labels of fit_calibration", len(matrix), num_classes)
    counts = torch.bincount(target, minlength=num_classes).double()
    ruled_out = ((counts > 0) & (prior == 0)).nonzero().flatten().tolist()
    if ruled_out:
        raise InputError(
            f"labels of fit_calibration must have probability above 0 in expressed, "
            f"got class {ruled_out[0]}"
        )
    if kind is None:
        kind = "vs" if len(matrix) >= SAMPLES_FOR_VECTOR * num_classes else "bcts"
    if kind not in ("bcts", "vs"):
        raise InputError(f"kind of fit_calibration must be 'bcts' or 'vs', got {kind!r}")
    log_swap = swap(prior, counts / counts.sum())
    scale, bias = _newton(matrix, target.to(matrix.device), log_swap, kind == "vs", ridge)
    return Calibration(scale, bias)


def _newton(
    logits: Tensor, labels: Tensor, log_swap: Tensor, per_class: bool, ridge: float
) -> tuple[Tensor, Tensor]:
    """Scale and bias of maximum penalised likelihood, by Newton steps with halving."""
    samples, num_classes = logits.shape
    scales = num_classes if per_class else 1
    exact = working_type(logits) == torch.float64
    # Tolerance for the gain of a step, nats; a thousandth is far below the sampling error.
    tolerance = 1e-14 * samples if exact else 1e-3
    values = torch.zeros(num_classes + scales, dtype=torch.float64)
    buffer: Tensor | None = None

    def at(values: Tensor) -> tuple[LabelLikelihood, float]:
        scale = values[num_classes:].exp()
        scale = scale if per_class else scale[0]
        bias = values[:num_classes]
        near = LabelLikelihood(logits, labels, log_swap, scale, bias, ridge, buffer)
        return near, near.loss + ridge / 2 * float(values.square().sum())

    near, loss = at(values)
    buffer = near.posteriors
    one = torch.ones(samples, 1).to(buffer)
    # Adding a constant to every bias changes no posterior, so the mean stays 0; rounding in
    # posteriors that do not quite sum to 1 would move it.
    possible = torch.cat([torch.isfinite(log_swap).cpu(), torch.zeros(scales, dtype=torch.bool)])
    for _ in range(100):
        slope = near.scores(one)[:, 0].cpu() - ridge * values
        slope[possible] -= slope[possible].mean()
        step = near.newton(slope[:, None].to(buffer.device))[:, 0].cpu()
        step[possible] -= step[possible].mean()
        gain = float(slope @ step)
        if gain < tolerance:
            break
        length = 1.0
        near, reached = at(values + step)
        while not reached <= loss - 1e-4 * length * gain and length > 1e-4:  # NaN is not a gain
            length /= 2
            near, reached = at(values + length * step)
        if not reached <= loss:  # the limit of this precision
            break
        values, loss = values + length * step, reached
    scale = values[num_classes:].exp()
    return (scale if per_class else scale[0]), values[:num_classes]

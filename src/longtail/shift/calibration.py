"""Bias-corrected temperature and vector scaling, fitted on held-out labelled logits."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from longtail.shift.posterior import (
    Logits,
    as_labels,
    as_logits,
    posteriors,
    row_blocks,
    working_type,
)
from longtail.shift.priors import Prior, probabilities

# Vector scaling has twice the parameters: it is chosen from this many samples a class upwards.
SAMPLES_FOR_VECTOR = 100

Kind = Literal["bcts", "vs"]


@dataclass(frozen=True)
class Calibration:
    """An affine correction of logits, class by class, apart from the prior they express.

    With u = logits - log expressed (the logits under a uniform prior), the corrected ones are
    scale * u + bias + log expressed: the prior is neither sharpened nor flattened by `scale`.

    Args:
        scale: () one inverse temperature (BCTS), or (num_classes,) one a class (VS), above 0;
            float64. VS works on logits whose row mean has been taken away.
        bias: (num_classes,), float64, nats.

    Example:
        >>> halved = Calibration(torch.tensor(0.5), torch.zeros(2))
        >>> halved(torch.tensor([[2.0, 0.0]]), expressed=[0.5, 0.5]).diff()
        tensor([[-1.]])
    """

    scale: Tensor
    bias: Tensor

    @classmethod
    def none(cls, num_classes: int) -> "Calibration":
        """The one that changes nothing."""
        one = torch.ones((), dtype=torch.float64)
        return cls(one, torch.zeros(num_classes, dtype=torch.float64))

    def __call__(self, logits: Tensor, expressed: Prior) -> Tensor:
        """Corrected logits (samples, num_classes), expressing what they expressed before."""
        prior = probabilities(expressed, "expressed of Calibration", logits.shape[-1])
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale.ndim:
            wide = wide - wide.mean(dim=-1, keepdim=True)
        log_prior = torch.where(prior > 0, prior.log(), 0.0)
        offset = self.bias + (1 - self.scale) * log_prior
        return (wide * self.scale.to(wide) + offset.to(wide)).to(logits.dtype)

    def slopes(self, logits: Tensor, expressed: Tensor) -> Tensor:
        """Change of the calibrated logits (samples, num_classes) with the log of their scale."""
        plain = logits.to(working_type(logits))
        if self.scale.ndim:
            plain = plain - plain.mean(dim=1, keepdim=True)
        plain = plain - torch.where(expressed > 0, expressed.log(), 0.0).to(plain)
        return plain * self.scale.to(plain)

    def posteriors(self, logits: Tensor, expressed: Tensor, prior: Tensor) -> Tensor:
        """Class probabilities (samples, num_classes) under `prior`, calibrated.

        Args:
            logits: (samples, num_classes), finite, expressing `expressed`.
            expressed: (num_classes,), float64.
            prior: (num_classes,), float64; 0 rules a class out.
        """
        offset = self.bias + _offset(expressed, prior, self.scale)
        return posteriors(logits, self.scale, offset, centre=self.scale.ndim > 0)


def _offset(expressed: Tensor, prior: Tensor, scale: Tensor) -> Tensor:
    """log prior - scale * log expressed; -inf for a class that either rules out."""
    allowed = (expressed > 0) & (prior > 0)
    offset = prior.log() - scale * expressed.log()
    return offset.masked_fill(~allowed, -torch.inf)


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
    cross-entropy of the labels, summed over the samples and taken under the class mix of `labels`
    (which need not be the one the model was trained under), plus
    ridge / 2 * (sum of squares of log scale and bias).
    Departs from the paper in: that penalty, a normal prior with standard deviation 1 / sqrt(ridge)
    on each parameter, which keeps the fit defined when classes are many, are missing or are told
    apart perfectly; `ridge=0` is the paper's.

    Args:
        logits: (samples, num_classes), held-out, expressing `expressed`.
        labels: (samples,), class index of each.
        expressed: prior of the logits, num_classes long.
        kind: `bcts` (one temperature) or `vs` (one a class), both with a bias a class; by default
            `vs` from 100 samples a class upwards, else `bcts`.
        ridge: strength of the penalty, 0 or more.
    Raises: ValueError: when an input has the wrong shape, is not finite, or a label has probability
        0 under `expressed`.

    Example:
        >>> logits = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
        >>> fitted = fit_calibration(logits, [0, 0, 1, 1], [0.5, 0.5], kind="bcts")
        >>> bool(fitted.scale < 1)  # three of four right is less sure than a margin of 3
        True
    """
    from scipy.optimize import minimize

    if ridge < 0:
        raise ValueError(f"ridge of fit_calibration must be >= 0, got {ridge}")
    prior = probabilities(expressed, "expressed of fit_calibration")
    num_classes = len(prior)
    matrix = as_logits(logits, "logits of fit_calibration", num_classes)
    target = as_labels(labels, "labels of fit_calibration", len(matrix), num_classes)
    counts = torch.bincount(target, minlength=num_classes).double()
    ruled_out = ((counts > 0) & (prior == 0)).nonzero().flatten().tolist()
    if ruled_out:
        raise ValueError(
            f"labels of fit_calibration must have probability above 0 in expressed, "
            f"got class {ruled_out[0]}"
        )
    if kind is None:
        kind = "vs" if len(matrix) >= SAMPLES_FOR_VECTOR * num_classes else "bcts"
    if kind not in ("bcts", "vs"):
        raise ValueError(f"kind of fit_calibration must be 'bcts' or 'vs', got {kind!r}")
    scales = 1 if kind == "bcts" else num_classes
    objective = _Objective(matrix, target, prior, counts, scales, ridge)
    fitted = minimize(
        objective,
        np.zeros(scales + num_classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-7 if matrix.numel() < 1e6 else 1e-5},
    )
    values = objective.unscale(fitted.x)
    scale = values[:scales].exp()
    return Calibration(scale.squeeze(0) if kind == "bcts" else scale, values[scales:])


class _Objective:
    """Penalised negative log-likelihood a sample and its gradient, for `scipy.optimize`."""

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        expressed: Tensor,
        counts: Tensor,
        scales: int,
        ridge: float,
    ) -> None:
        self.logits, self.labels, self.scales, self.ridge = logits, labels, scales, ridge
        self.log_expressed = torch.where(expressed > 0, expressed.log(), 0.0)
        log_mix = (counts / counts.sum()).log()
        self.log_mix = log_mix.masked_fill(expressed == 0, -torch.inf)
        # The curvature in a bias is at most its class count: dividing by the root of it gives
        # head and tail classes steps of the same size.
        root = (counts + 1).rsqrt() * len(labels) ** 0.5
        width = torch.ones(1, dtype=torch.float64) if scales == 1 else root
        self.steps = torch.cat([width, root])

    def unscale(self, x: NDArray[np.float64]) -> Tensor:
        """Log scales and biases, from the optimiser's variables."""
        return torch.from_numpy(x) * self.steps

    def __call__(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values = self.unscale(x)
        loss, gradient = self._likelihood(values[: self.scales].exp(), values[self.scales :])
        gradient[: self.scales] *= values[: self.scales].exp()
        loss += self.ridge / 2 * float(values.square().sum())
        gradient += self.ridge * values
        samples = len(self.labels)
        return loss / samples, (gradient * self.steps / samples).numpy()

    def _likelihood(self, scale: Tensor, bias: Tensor) -> tuple[float, Tensor]:
        """Summed cross-entropy and its gradient with respect to (scale, bias)."""
        dtype, device = working_type(self.logits), self.logits.device
        offset = (bias + self.log_mix).to(device, dtype)
        log_expressed, width = self.log_expressed.to(device, dtype), scale.to(device, dtype)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        by_scale = torch.zeros(self.scales, dtype=torch.float64, device=device)
        by_bias = torch.zeros(len(bias), dtype=torch.float64, device=device)
        for rows in row_blocks(self.logits):
            plain = self.logits[rows].to(dtype) - log_expressed
            if self.scales > 1:
                plain = plain - self.logits[rows].to(dtype).mean(dim=1, keepdim=True)
            target = self.labels[rows].to(device)[:, None]
            log_posterior = torch.addcmul(offset, plain, width).log_softmax(dim=1)
            loss -= log_posterior.gather(1, target).sum()
            residual = log_posterior.exp_()
            residual.scatter_add_(1, target, residual.new_full(target.shape, -1.0))
            by_bias += residual.sum(dim=0)
            products = residual.mul_(plain)
            by_scale += products.sum() if self.scales == 1 else products.sum(dim=0)
        return float(loss), torch.cat([by_scale, by_bias]).cpu()

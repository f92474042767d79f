"""One-step bootstrap: how far an estimated class mix moves when both samples are drawn again."""

import torch
from torch import Tensor

from longtail.shift.moments import DENSE, Confusion

# 97.5% point of the standard normal distribution.
Z = 1.959963984540054


def resample_weights(samples: int, draws: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Weights of `draws` resamples less 1: (samples, draws), Poisson(1), every draw centred.

    Poisson counts are what drawing with replacement gives each sample, without the bound on their
    sum; centring puts that bound back. Scaled so that n samples do not look like n - 1.
    """
    rate = torch.ones(samples, draws, dtype=like.dtype)
    weights = torch.poisson(rate, generator=generator).to(like.device)
    weights -= weights.mean(dim=0)
    return weights * (samples / max(samples - 1, 1)) ** 0.5


def solve_gram(rows: Tensor, diagonal: Tensor, right: Tensor, sign: float = 1.0) -> Tensor:
    """Solves (diag(diagonal) + sign * rows.T @ rows) X = right for a positive definite matrix.

    By Cholesky up to 2,048 columns; above that by conjugate gradients to one part in a thousand,
    which never form the matrix (8,142 columns squared, and 24,426 rows to sum over).

    Args:
        rows: (samples, columns).
        diagonal: (columns,).
        right: (columns, systems).
    Returns: (columns, systems).
    """
    if rows.shape[1] <= DENSE:
        gram = (sign * rows.T @ rows).double()
        gram += torch.diag(diagonal.double())
        # A direction that no sample speaks of gets rounding noise for an eigenvalue.
        gram.diagonal().add_(1e-10 * gram.diagonal().mean())
        factor = torch.linalg.cholesky(gram)
        return torch.cholesky_solve(right.double(), factor).to(right)
    jacobi = (diagonal + sign * rows.square().sum(dim=0))[:, None]
    solution, residual = torch.zeros_like(right), right
    direction = residual / jacobi
    energy = (residual * direction).sum(dim=0)
    start = energy
    for _ in range(100):
        image = diagonal[:, None] * direction + sign * (rows.T @ (rows @ direction))
        length = energy / (direction * image).sum(dim=0).clamp(min=1e-30)
        solution = solution + length * direction
        residual = residual - length * image
        scaled = residual / jacobi
        following = (residual * scaled).sum(dim=0)
        if bool((following <= 1e-6 * start).all()):
            break
        direction, energy = scaled + following / energy.clamp(min=1e-30) * direction, following
    return solution


def em_moves(
    posteriors: Tensor,
    reference: Tensor,
    prior: Tensor,
    strength: float,
    weights: Tensor,
    bias: Tensor | None = None,
    slopes: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Changes of the EM estimate under each resample, by one Newton step of its likelihood.

    With r the posteriors under the estimate q, divided by q / reference to stay finite where q is
    0, the step solves (r^T r + strength * diag(reference)) x = r^T weights + (the change of r^T 1
    that comes from the calibration's moves), and q moves by reference * x.

    Args:
        posteriors: (samples, num_classes), of the target under `reference`; overwritten.
        reference: (num_classes,).
        prior: (num_classes,), the estimate.
        strength: as in `em_prior`.
        weights: (samples, draws), as `resample_weights` makes them.
        bias: (num_classes, draws), how the calibration's bias moves; None for fixed.
        slopes: (samples, num_classes), change of the calibrated logits with log scale.
        scale: (num_classes or 1, draws), how log scale moves; None for fixed.
    Returns: (num_classes, draws).
    """
    p = reference.to(posteriors)
    ratio = torch.where(p > 0, prior.to(posteriors) / p, torch.ones_like(p))
    rows = posteriors.div_((posteriors @ ratio)[:, None])

    def drift(sloped: Tensor, by: Tensor) -> Tensor:
        return sloped.sum(dim=0)[:, None] * by - rows.T @ (sloped @ (ratio[:, None] * by))

    right = rows.T @ weights
    if bias is not None:
        right += drift(rows, bias)
    if slopes is not None and scale is not None:
        right += drift(rows * slopes, scale.expand(len(p), -1))
    # A class that is ruled out has an empty column: any number above 0 on the diagonal will do.
    diagonal = torch.where(p > 0, max(strength, 1e-9) * p, torch.ones_like(p))
    return p[:, None] * solve_gram(rows, diagonal, right)


def bias_moves(posteriors: Tensor, labels: Tensor, ridge: float, weights: Tensor) -> Tensor:
    """Changes of a fitted calibration's bias under each resample of the source, the scale held.

    One Newton step of the penalised likelihood that `fit_calibration` minimises. A resample in
    which a class comes more often also has a larger log mix for it; the bias answers for the rest.

    Args:
        posteriors: (samples, num_classes), calibrated, under the mix of `labels`.
        labels: (samples,).
        ridge: the penalty that the fit had.
        weights: (samples, draws).
    Returns: (num_classes, draws).
    """
    hits, log_mix = _hits(labels, weights, posteriors.shape[1])
    expected = posteriors.sum(dim=0)
    right = hits - expected[:, None] * log_mix - posteriors.T @ (weights - posteriors @ log_mix)
    return solve_gram(posteriors, expected + max(ridge, 1e-6), right, sign=-1.0)


def calibration_moves(
    posteriors: Tensor,
    slopes: Tensor,
    labels: Tensor,
    ridge: float,
    weights: Tensor,
    per_class: bool,
) -> tuple[Tensor, Tensor]:
    """As `bias_moves`, with the scale free as well; forms the whole matrix of second derivatives.

    Args:
        posteriors: (samples, num_classes), as in `bias_moves`.
        slopes: (samples, num_classes), change of the calibrated logits with log scale.
        labels: (samples,).
        ridge: the penalty that the fit had.
        weights: (samples, draws).
        per_class: whether each class has a scale of its own (VS).
    Returns: changes of the bias, (num_classes, draws), and of log scale, (num_classes or 1, draws).
    """
    num_classes = posteriors.shape[1]
    sloped = posteriors * slopes
    hits, log_mix = _hits(labels, weights, num_classes)
    own = slopes.gather(1, labels[:, None]) * weights
    pull = _hits(labels, own, num_classes)[0]
    bend, cross = (sloped * slopes).sum(dim=0), torch.diag(sloped.sum(dim=0))
    if per_class:
        bend = torch.diag(bend)
    else:
        sloped, cross = sloped.sum(dim=1, keepdim=True), cross.sum(dim=1, keepdim=True)
        pull, bend = pull.sum(dim=0, keepdim=True), bend.sum().reshape(1, 1)
    rows = torch.cat([posteriors, sloped], dim=1)
    top = torch.cat([torch.diag(posteriors.sum(dim=0)), cross], dim=1)
    hessian = torch.cat([top, torch.cat([cross.T, bend], dim=1)]) - rows.T @ rows
    right = torch.cat([hits, pull]) - rows.T @ weights - hessian[:, :num_classes] @ log_mix
    hessian.diagonal().add_(max(ridge, 1e-6))
    moves = torch.cholesky_solve(right.double(), torch.linalg.cholesky(hessian.double())).to(rows)
    return moves[:num_classes], moves[num_classes:]


def _hits(labels: Tensor, weights: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weights summed by class, and how they move the log of the class mix."""
    hits = weights.new_zeros(num_classes, weights.shape[1]).index_add_(0, labels, weights)
    counts = torch.bincount(labels, minlength=num_classes).to(hits).clamp(min=1)
    return hits, hits / counts[:, None]


def shift_test(
    confusion: Confusion | None,
    posteriors: Tensor,
    reference: Tensor,
    source_weights: Tensor | None,
    target_weights: Tensor,
) -> float:
    """p-value of the hypothesis that the target has the class mix `reference`.

    If it has, the mean posterior of the target equals that of the source samples with every class
    given its share in `reference`: label shift leaves p(x | class) alone, so this holds for a
    badly calibrated model, too. Without source samples the posteriors are taken at their word: the
    mean must be `reference`. The statistic is the sum over classes of the squared difference over
    (reference + 1 / target samples); it is compared with what the resamples give.

    Args:
        confusion: of the source posteriors, or None without a source.
        posteriors: (samples, num_classes), of the target, under `reference`.
        reference: (num_classes,).
        source_weights: (source samples, draws).
        target_weights: (samples, draws).
    """
    samples = len(posteriors)
    if samples < 2:
        return 1.0
    p = reference.to(posteriors)
    difference = posteriors.mean(dim=0) - p
    noise = posteriors.T @ target_weights / samples
    if confusion is not None and source_weights is not None:
        difference = posteriors.mean(dim=0) - confusion.matrix @ p
        noise = noise - confusion.noise(source_weights, p)
    scale = p + 1 / samples
    found = (difference.square() / scale).sum()
    by_chance = (noise.square() / scale[:, None]).sum(dim=0)
    return float((1 + (by_chance >= found).sum()) / (1 + len(by_chance)))


def intervals(prior: Tensor, moves: Tensor, samples: int) -> Tensor:
    """95% interval of each class's probability.

    Wilson's score interval, widened: all q with (prior - q)^2 <= z^2 (q (1 - q) / samples + e),
    where the first part is the variance of counting `samples` known labels, and e is what the
    resampled variance holds beyond that: confusion between classes, and a finite source sample.
    It stays within [0, 1] and does not collapse for a class that was never seen.

    Args:
        prior: (num_classes,).
        moves: (num_classes, draws), changes of the estimate under each resample.
        samples: number of target samples.
    Returns: (num_classes, 2), float64.
    """
    q = prior.double().cpu()
    variance = moves.double().square().mean(dim=1).cpu()
    extra = (variance - q * (1 - q) / samples).clamp(min=0)
    width = Z**2 / samples
    middle = 2 * q + width
    root = (middle**2 - 4 * (1 + width) * (q**2 - Z**2 * extra)).clamp(min=0).sqrt()
    ends = torch.stack([middle - root, middle + root], dim=1) / (2 * (1 + width))
    return ends.clamp(0, 1)

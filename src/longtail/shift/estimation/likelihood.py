"""Likelihood of labels near one calibration: its gradient, its curvature and Newton steps."""

import torch
from torch import Tensor

from longtail.shift.estimation.posterior import row_blocks, working_type

# Number of classes up to which dense factorisations take about a second.
DENSE = 2048


class LabelLikelihood:
    """Cross-entropy of labels under softmax(scale * logits + bias + swap), expanded to 2nd order.

    Parameters are stacked as (bias, log scale): num_classes, then 1 or num_classes of them.

    Args:
        logits: (samples, num_classes).
        labels: (samples,), int64, on the device of `logits`.
        swap: (num_classes,), takes the logits to the class prior of `labels`; -inf rules out
            a class.
        scale: () one for all classes, or (num_classes,), for logits less their row mean.
        bias: (num_classes,).
        ridge: weight of half the sum of squared parameters.
        buffer: (samples, num_classes), to be overwritten in place of a new matrix.

    Attributes:
        loss: nats, summed over the samples, without the penalty.
        posteriors: (samples, num_classes).
        mass: (num_classes,), float64, their sum over the samples.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        swap: Tensor,
        scale: Tensor,
        bias: Tensor,
        ridge: float,
        buffer: Tensor | None = None,
    ) -> None:
        dtype, device = working_type(logits), logits.device
        self.labels, self.ridge, self.shared = labels, ridge, scale.ndim == 0
        if buffer is None:
            buffer = torch.empty(logits.shape, dtype=dtype, device=device)
        self.posteriors = buffer
        samples, num_classes = logits.shape
        width, offset = scale.to(device, dtype), (bias + swap).to(device, dtype)
        # d logit / d log scale of the label, and its product with the posteriors, summed over
        # classes if the scale is shared.
        self.own = self.posteriors.new_empty(samples)
        self.sloped = self.posteriors.new_empty(samples, 1 if self.shared else num_classes)
        # Sums over samples are in float64: with a million samples in float32, a curvature that is
        # the difference of two such sums would become negative.
        zero = torch.zeros((), dtype=torch.float64, device=device)
        self.mass, cross, bend = (zero.repeat(num_classes) for _ in range(3))
        loss = zero.clone()
        for rows in row_blocks(logits):
            block = centred(logits[rows].to(dtype), scale)
            target = labels[rows, None]
            log_posterior = torch.addcmul(offset, block, width).log_softmax(dim=1)
            loss -= log_posterior.gather(1, target).double().sum()
            self.posteriors[rows] = log_posterior.exp_()
            self.mass += log_posterior.sum(dim=0, dtype=torch.float64)
            slopes = block.mul_(width)
            self.own[rows] = slopes.gather(1, target)[:, 0]
            products = log_posterior.mul_(slopes)
            self.sloped[rows] = products.sum(dim=1, keepdim=True) if self.shared else products
            cross += products.sum(dim=0, dtype=torch.float64)
            bend += products.mul_(slopes).sum(dim=0, dtype=torch.float64)
        self.loss = float(loss)
        self.cross = cross[:, None] if self.shared else torch.diag(cross)
        self.bend = bend.sum().reshape(1, 1) if self.shared else torch.diag(bend)

    def scores(self, weights: Tensor) -> Tensor:
        """Gradient of the log-likelihood of weighted samples, (parameters, columns).

        Args:
            weights: (samples, columns).
        """
        own = self.own[:, None] * weights.double()
        pull = own.sum(dim=0, keepdim=True) if self.shared else self.by_class(own)
        bias = self.by_class(weights) - inner(self.posteriors, weights)
        return torch.cat([bias, pull - inner(self.sloped, weights)])

    def newton(self, right: Tensor) -> Tensor:
        """Solves (second derivatives + penalty) X = right, (parameters, columns).

        The term of the second derivative with respect to log scale that has the gradient as a
        factor is left out, so that the matrix is never indefinite.
        """
        num_classes = self.posteriors.shape[1]
        ridge = max(self.ridge, 1e-8)
        right = right.double()
        diagonal = self.mass + ridge
        edge = self.cross - inner(self.posteriors, self.sloped)
        corner = self.bend - inner(self.sloped, self.sloped)
        corner = corner + ridge * torch.eye(len(corner)).to(corner)
        # Block elimination solves for the bias of many classes without forming its matrix.
        both = torch.cat([right[:num_classes], edge], dim=1)
        solved = solve_gram(self.posteriors, diagonal, both)
        columns = right.shape[1]
        rest = right[num_classes:] - edge.T @ solved[:, :columns]
        scale = torch.linalg.solve(corner - edge.T @ solved[:, columns:], rest)
        return torch.cat([solved[:, :columns] - solved[:, columns:] @ scale, scale])

    def by_class(self, weights: Tensor) -> Tensor:
        """Weights (samples, columns) summed by label, (num_classes, columns)."""
        total = torch.zeros(
            self.posteriors.shape[1], weights.shape[1], dtype=torch.float64, device=weights.device
        )
        return total.index_add_(0, self.labels, weights.double())


def centred(logits: Tensor, scale: Tensor) -> Tensor:
    """Logits less their row mean if each class has its own scale."""
    return logits - logits.mean(dim=1, keepdim=True) if scale.ndim else logits.clone()


def solve_gram(rows: Tensor, diagonal: Tensor, right: Tensor) -> Tensor:
    """Solves (diag(diagonal) - rows.T @ rows) X = right for a positive definite matrix.

    Uses Cholesky up to 2,048 columns; above that, conjugate gradients to a relative error of one
    percent, which never form the matrix (8,142 columns squared, and 24,426 rows to sum over).

    Args:
        rows: (samples, columns).
        diagonal: (columns,), float64.
        right: (columns, systems), float64.
    Returns: (columns, systems), float64.
    """
    if rows.shape[1] <= DENSE:
        gram = torch.diag(diagonal) - inner(rows, rows)
        # A direction without information from any sample has rounding noise as its eigenvalue.
        noise = max(1e-10, 8 * torch.finfo(rows.dtype).eps)
        gram.diagonal().add_(noise * gram.diagonal().mean())
        return torch.cholesky_solve(right, torch.linalg.cholesky(gram))
    diagonal, right = diagonal.to(rows), right.to(rows)
    jacobi = diagonal.clone()
    for part in row_blocks(rows):  # of a whole matrix at once the norms take five times as long
        jacobi -= rows[part].square().sum(dim=0)
    jacobi = jacobi[:, None]
    solution, residual = torch.zeros_like(right), right
    direction = residual / jacobi
    energy = (residual * direction).sum(dim=0)
    start = energy
    for _ in range(100):
        image = diagonal[:, None] * direction
        for part in row_blocks(rows):  # each block is still in the cache the second time
            block = rows[part]
            image.addmm_(block.T, block @ direction, alpha=-1)
        length = energy / (direction * image).sum(dim=0).clamp(min=1e-30)
        solution = solution + length * direction
        residual = residual - length * image
        scaled = residual / jacobi
        following = (residual * scaled).sum(dim=0)
        if bool((following <= 1e-4 * start).all()):
            break
        direction, energy = scaled + following / energy.clamp(min=1e-30) * direction, following
    return solution.double()


def inner(left: Tensor, right: Tensor) -> Tensor:
    """left.T @ right, summed over rows in float64, block by block."""
    total = torch.zeros(left.shape[1], right.shape[1], dtype=torch.float64, device=left.device)
    for rows in row_blocks(left):
        total += left[rows].double().T @ right[rows].double()
    return total

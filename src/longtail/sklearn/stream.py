"""A linear head on a stream of batches, in bounded memory."""

import torch
from torch import Tensor

from longtail.losses import ClassificationLoss
from longtail.probe.linear import Features, Linear, centre, moments, penalty_strength, product

TINY = 1e-30


class Stream:
    """Adagrad on mini-batches of features that arrive batch by batch.

    Duchi et al., Adaptive Subgradient Methods, JMLR 2011: each weight has its own step size, which
    is large if its gradients were small, as for a rare class, and decreases with every gradient.

    Args:
        x: (samples, num_features), the first batch, which sets the mean and variance of the
            features permanently.
        weight: (samples,), weight of each sample.
        num_classes: number of classes.
        learning_rate: initial learning rate, for the weights of one logit together.
        inverse_penalty: C, see `penalty_strength`.
        scale: (num_features,), divisor of each feature in the penalty, see `penalty_strength`.
        start: initial weights; default: zeros.
    """

    def __init__(
        self,
        x: Features,
        weight: Tensor,
        num_classes: int,
        *,
        learning_rate: float,
        inverse_penalty: float,
        scale: Tensor | None = None,
        start: Linear | None = None,
    ) -> None:
        mean, self.variance = moments(x, weight)
        self.mean = centre(x, mean)
        self.scale = scale
        square = self.variance + (mean - self.mean).square()
        # A feature that has not varied yet keeps its unit.
        self.unit = torch.where(square > 0, square, 1.0).rsqrt()
        # The steps of all weights add up in a logit; for independent features as the root of their
        # number.
        self.learning_rate = learning_rate / len(self.unit) ** 0.5
        self.inverse_penalty = inverse_penalty
        self.weight = self.unit.new_zeros(num_classes, len(self.unit))
        self.bias = self.unit.new_zeros(num_classes)
        if start is not None:
            self.weight = start.weight / self.unit
            self.bias = start.bias + start.weight @ self.mean
        self.squares = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        self.steps = 0

    def linear(self) -> Linear:
        """The current head, for the original features."""
        weight = self.weight * self.unit
        return Linear(weight, self.bias - weight @ self.mean)

    def step(
        self, x: Features, target: Tensor, weight: Tensor, loss: ClassificationLoss, seen: float
    ) -> None:
        """One step on one mini-batch.

        Args:
            x: (batch, num_features).
            target: (batch,), class index.
            weight: (batch,), weight of each sample.
            loss: any classification loss.
            seen: number of samples so far, which weights the data against the penalty.
        """
        head = self.linear()
        logits = head.logits(x).requires_grad_()
        (slope,) = torch.autograd.grad(loss(logits, target, weight), logits)
        total = slope.sum(0)
        strength = penalty_strength(self.variance, self.scale, self.inverse_penalty, seen)
        raw = product(x.T, slope.T).T - torch.outer(total, self.mean) + strength * head.weight
        gradients = raw * self.unit, total
        for value, gradient, squares in zip(
            (self.weight, self.bias), gradients, self.squares, strict=True
        ):
            squares += gradient.square()
            value -= self.learning_rate * gradient * squares.clamp(min=TINY).rsqrt()
        self.steps += 1

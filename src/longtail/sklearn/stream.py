"""A linear head on a stream of batches, in bounded memory."""

import torch
from torch import Tensor

from longtail.losses import ClassificationLoss
from longtail.sklearn.linear import Features, Linear, moments, penalty_strength, product

TINY = 1e-30


class Stream:
    """Adagrad on mini-batches of features that come a part at a time.

    Duchi et al., Adaptive Subgradient Methods, JMLR 2011: each weight has its own step, large where
    gradients were small, as they are for a rare class, and smaller with every gradient.

    Args:
        x: (samples, num_features), the first part: it sets the centre and scale of the features
            for good.
        weight: (samples,), weight of each.
        num_classes: number of classes.
        learning_rate: of the first step, for the weights of one logit together.
        inverse_penalty: C, see `penalty_strength`.
        start: where to begin; zeros when not given.
    """

    def __init__(
        self,
        x: Features,
        weight: Tensor,
        num_classes: int,
        *,
        learning_rate: float,
        inverse_penalty: float,
        start: Linear | None = None,
    ) -> None:
        self.mean, self.variance = moments(x, weight)
        # A feature that has not varied yet keeps the scale it has.
        self.scale = torch.where(self.variance > 0, self.variance, 1.0).rsqrt()
        # Steps of all weights add up in a logit, those of independent features as the root.
        self.learning_rate = learning_rate / len(self.scale) ** 0.5
        self.inverse_penalty = inverse_penalty
        self.weight = self.scale.new_zeros(num_classes, len(self.scale))
        self.bias = self.scale.new_zeros(num_classes)
        if start is not None:
            self.weight = start.weight / self.scale
            self.bias = start.bias + start.weight @ self.mean
        self.squares = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        self.steps = 0

    def linear(self) -> Linear:
        """The head as it stands, for features as they come."""
        weight = self.weight * self.scale
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
            seen: samples so far, which weigh the data against the penalty.
        """
        head = self.linear()
        logits = head.logits(x).requires_grad_()
        (slope,) = torch.autograd.grad(loss(logits, target, weight), logits)
        total = slope.sum(0)
        strength = penalty_strength(self.variance, self.inverse_penalty, seen)
        raw = product(x.T, slope.T).T - torch.outer(total, self.mean) + strength * head.weight
        gradients = raw * self.scale, total
        for value, gradient, squares in zip(
            (self.weight, self.bias), gradients, self.squares, strict=True
        ):
            squares += gradient.square()
            value -= self.learning_rate * gradient * squares.clamp(min=TINY).rsqrt()
        self.steps += 1

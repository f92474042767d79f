"""DBM: angular margins on top of logit adjustment, wider for rare classes and for hard samples."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtail.losses.base import ClassificationLoss, check_batch, check_counts
from longtail.precision import full_precision
from longtail.prior import ClassPrior
from longtail.ranges import check_range
from longtail.targets import mean_over_rows

EDGE = 1e-6  # nearer to a cosine of 1 or -1, where the angle has no derivative, the margin is fixed


def dbm_loss(
    logits: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    *,
    max_margin: float = 0.1,
    scale: float = 30.0,
) -> Tensor:
    """Logit-adjusted cross-entropy with an angular margin between a sample and its class.

    DBM-BS of Son et al., Difficulty-aware Balancing Margin Loss for Long-tailed Recognition, AAAI
    2025, arXiv 2412.15477: the target's logit, scale times cos(angle), becomes scale times
    cos(angle + margin). The margin of a class is `max_margin` n_min / n_c. For a hard sample, one
    whose largest logit is not the target's, it grows by the factor 1 + (1 - cos(angle)) / 2.
    Differences from the published code: this function takes the classifier's logits, where the code
    takes cosines; the rarest class may have any index, where the code assumes the last; within
    1e-6 of a cosine of 1 or -1, and beyond, the shift of the logit is constant, where the code has
    a gradient of NaN.

    Args:
        logits: (batch, num_classes), `scale` times cosine.
        target: (batch,), class index in [0, num_classes), or -100 for an ignored sample.
        class_counts: (num_classes,), training samples of each class.
        max_margin: margin of the rarest class, K, radians, from 0 to 1; 0: logit adjustment.
        scale: factor that the classifier puts on its cosines.

    Returns: scalar, nats per sample, mean over the batch.

    Raises: ValueError: when a setting is out of range, or an argument has the wrong type, shape or
        values.

    Examples:
        >>> counts = torch.tensor([16, 1])
        >>> logits, target = torch.tensor([[0.0, 15.0]]), torch.tensor([1])
        >>> dbm_loss(logits, target, counts, max_margin=0.0)
        tensor(4.8876e-06)
        >>> dbm_loss(logits, target, counts, max_margin=0.4)
        tensor(0.3337)
    """
    class_counts = check_counts(class_counts)
    target, counts = check_batch("dbm_loss", logits, target, len(class_counts))
    total = class_counts.sum()
    margin = _margins(class_counts / total, max_margin, scale)
    log_prior = class_counts.log() - total.log()
    nats = _nats(full_precision(logits), target, log_prior, margin, scale)
    return mean_over_rows(nats, counts)


class DBMLoss(ClassificationLoss):
    """Difficulty-aware balancing margins on logit adjustment.

    See `dbm_loss`. The classifier is a cosine classifier with the same `scale`.

    Args:
        prior: class prior of the training set.
        max_margin: margin of the rarest class, radians, from 0 to 1; 0: logit adjustment.
        scale: factor that the classifier puts on its cosines.

    Raises: ValueError: when a setting is out of range.

    Examples:
        >>> loss = DBMLoss(ClassPrior([16, 1]), max_margin=0.4)
        >>> loss(torch.tensor([[0.0, 15.0]]), torch.tensor([1]))
        tensor(0.3337)
    """

    name: ClassVar[str] = "dbm"
    use: ClassVar[str] = "training from scratch: logit adjustment with margins, at no extra cost"
    expresses = "uniform"
    head: ClassVar[str] = "cosine"
    margin: Tensor

    def __init__(self, prior: ClassPrior, *, max_margin: float = 0.1, scale: float = 30.0) -> None:
        super().__init__(prior)
        self.register_buffer("margin", _margins(prior.probabilities, max_margin, scale))
        self.scale = scale

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats of each sample, (batch,)."""
        return _nats(logits, target, self.log_prior, self.margin, self.scale)


def _margins(probabilities: Tensor, max_margin: float, scale: float) -> Tensor:
    """Margin of each class in radians, (num_classes,), float64."""
    check_range("max_margin of DBMLoss", max_margin, least=0, most=1)
    check_range("scale of DBMLoss", scale, above=0)
    return max_margin * probabilities.min() / probabilities


def _nats(
    logits: Tensor, target: Tensor, log_prior: Tensor, margin: Tensor, scale: float
) -> Tensor:
    """Nats of each sample, the target's logit moved by the margin of its class and difficulty."""
    row = target[:, None]
    own = logits.gather(1, row)
    cosine = (own / scale).clamp(EDGE - 1, 1 - EDGE)
    hard = logits.argmax(1, keepdim=True) != row
    angle = margin.to(logits)[row] * torch.where(hard, 1 + (1 - cosine) / 2, 1.0)
    moved = cosine * angle.cos() - (1 - cosine.square()).sqrt() * angle.sin()
    adjusted = logits.scatter(1, row, own + scale * (moved - cosine)) + log_prior.to(logits)
    return cross_entropy(adjusted, target, reduction="none")

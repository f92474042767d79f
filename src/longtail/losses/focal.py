"""Focal loss: cross-entropy that reduces the weight of well-classified samples."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtail.losses.base import ClassificationLoss, check_batch
from longtail.precision import full_precision
from longtail.prior import ClassPrior
from longtail.ranges import check_range
from longtail.targets import check_tensor, mean_over_rows


def focal_loss(logits: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p the probability given to the target.

    Equation 4 of Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv 1708.02002.
    Differences from the paper: a softmax over classes instead of a sigmoid per class, as everywhere
    in long-tailed recognition.

    Args:
        logits: (batch, num_classes), unnormalised natural-log scores.
        target: (batch,), class index in [0, num_classes), or -100 for an ignored sample.
        gamma: 0 or more; 0 is plain cross-entropy.

    Returns: scalar, nats per sample, mean over the batch.

    Raises: ValueError: when gamma is negative, or an argument has the wrong type, shape or values.

    Examples:
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([1]), gamma=2.0)  # log(2) / 4
        tensor(0.1733)
    """
    check_range("gamma of focal_loss", gamma, least=0)
    check_tensor("focal_loss", "logits", logits)
    num_classes = logits.shape[-1] if logits.ndim else 0
    target, counts = check_batch("focal_loss", logits, target, num_classes)
    return mean_over_rows(_focal_nats(full_precision(logits), target, gamma), counts)


class FocalLoss(ClassificationLoss):
    """Focal loss, which reduces the weight of well-classified samples.

    See `focal_loss`. The raw logits express the source prior approximately: the loss flattens them.

    Args:
        prior: class prior of the training set; only its number of classes is used.
        gamma: 0 or more; 0 is plain cross-entropy.

    Raises: ValueError: when gamma is negative.

    Examples:
        >>> loss = FocalLoss(ClassPrior([9, 1]))
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor(0.1733)
    """

    name: ClassVar[str] = "focal"
    use: ClassVar[str] = "baseline of many papers; does not use the class counts"
    expresses = "source"

    def __init__(self, prior: ClassPrior, *, gamma: float = 2.0) -> None:
        super().__init__(prior)
        check_range("gamma of FocalLoss", gamma, least=0)
        self.gamma = gamma

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Nats of each sample, (batch,)."""
        return _focal_nats(logits, target, self.gamma)

    def any_class(self, logits: Tensor) -> Tensor:
        """Mean of `per_sample` over all classes as the target, (batch,)."""
        return _weighted_down(-logits.log_softmax(1), self.gamma).mean(1)


def _focal_nats(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    return _weighted_down(cross_entropy(logits, target, reduction="none"), gamma)


def _weighted_down(nats: Tensor, gamma: float) -> Tensor:
    # 1 - p by expm1 keeps its digits near p = 1; at p = 1 itself the power with a gamma below 1 has
    # an infinite slope, which the smallest number above 0 avoids.
    missing = -torch.expm1(-nats)
    return missing.clamp(min=torch.finfo(nats.dtype).tiny) ** gamma * nats

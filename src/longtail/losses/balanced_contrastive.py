"""Balanced contrastive loss: every class has one voice in the sum, and a prototype."""

from typing import Any

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses.contrast import check_temperature, check_views
from longtail.precision import full_precision, no_autocast


def balanced_contrastive_loss(
    features: Tensor, prototypes: Tensor, target: Tensor, *, temperature: float
) -> Tensor:
    """Contrast of every view with all others and the prototypes, each class averaged.

    Equation 8 of Zhu et al., Balanced Contrastive Learning for Long-Tailed Visual Recognition, CVPR
    2022, arXiv 2207.09052. For an anchor of class y, the members are the other views and a
    prototype of every class; the exponentials in the sum are averaged over the members of each
    class (without the anchor in its own); positives are the other members of class y.
    Departs from the published code in: any number of views; the average over a class is a weight
    of each member, in the log domain.

    Args:
        features: (batch, views, width), unit norm, any number of views.
        prototypes: (num_classes, width), unit norm.
        target: (batch,), class index in [0, num_classes).
        temperature: above 0, divides.

    Returns: scalar, nats per view, mean over all views.

    Raises: ValueError: when the temperature is not above 0 or the shapes do not fit.

    Example:
        >>> features = torch.eye(2)[:, None].expand(2, 2, 2)  # two images, two equal views each
        >>> balanced_contrastive_loss(features, torch.eye(2), torch.tensor([0, 1]), temperature=1.0)
        tensor(0.3133)
    """
    check_temperature("balanced_contrastive_loss", temperature)
    check_views("balanced_contrastive_loss", features, target)
    if prototypes.ndim != 2 or prototypes.shape[1] != features.shape[2]:
        raise InputError(
            f"prototypes of balanced_contrastive_loss must be (num_classes, {features.shape[2]}), "
            f"got {tuple(prototypes.shape)}"
        )
    anchor = full_precision(features).flatten(0, 1)
    member = torch.cat([anchor, full_precision(prototypes)])
    labels = target.repeat_interleave(features.shape[1])
    nats: Tensor = _Contrast.apply(anchor / temperature, member, labels)
    return nats.mean()


class BalancedContrastiveLoss(nn.Module):
    """Balanced contrastive loss, the contrastive part of BCL.

    See `balanced_contrastive_loss`; BCL adds it to the logit-adjusted cross-entropy of a
    classifier, whose logits then express the uniform prior.

    Args:
        temperature: above 0, divides.

    Example:
        >>> loss = BalancedContrastiveLoss(temperature=1.0)
        >>> loss(torch.eye(2)[:, None].expand(2, 2, 2), torch.eye(2), torch.tensor([0, 1]))
        tensor(0.3133)
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        check_temperature("BalancedContrastiveLoss", temperature)
        self.temperature = temperature

    def forward(self, features: Tensor, prototypes: Tensor, target: Tensor) -> Tensor:
        """Scalar, nats per view; arguments as in `balanced_contrastive_loss`."""
        return balanced_contrastive_loss(features, prototypes, target, temperature=self.temperature)


class _Contrast(torch.autograd.Function):
    """Nats of each anchor, from one matrix of similarities that is worked on in place.

    Members are the anchors, then the prototypes. Each has weight 1 / |A_j|, the size of its class,
    prototype included, in every row: an offset of its column. Only in the rows of its own class,
    where the anchor is left out, is it 1 / (|A_j| - 1): there the offset is lifted, which takes
    the block of anchors (N, N), and one prototype a row.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, member: Tensor, labels: Tensor) -> Tensor:
        rows = len(anchor)
        count = anchor.new_ones(len(member) - rows).index_add_(0, labels, anchor.new_ones(rows))
        log_count = count.log()
        others = count[labels] - 1
        lift = (log_count[labels] - others.log())[:, None]
        same = (labels[:, None] == labels).to(anchor).fill_diagonal_(0.0)
        prototype = rows + labels[:, None]

        offset = -torch.cat([log_count[labels], log_count])
        with no_autocast(anchor):
            scores = torch.addmm(offset, anchor, member.T)
            among = scores[:, :rows]
            own = scores.gather(1, prototype)
            positives = torch.linalg.vecdot(among, same) + own.squeeze(1)
        mean = positives / others + log_count[labels]

        among.addcmul_(same, lift)
        scores.diagonal().fill_(-torch.inf)
        scores.scatter_(1, prototype, own + lift)
        peak = scores.amax(1, keepdim=True)
        weight = scores.sub_(peak).exp_()
        total = weight.sum(1)
        ctx.save_for_backward(anchor, member, weight, total, same, prototype, others)
        nats: Tensor = peak.squeeze(1) + total.log() - mean
        return nats

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        anchor, member, weight, total, same, prototype, others = ctx.saved_tensors
        gradient = weight * (grad / total)[:, None]
        positive = -(grad / others)[:, None]
        gradient[:, : len(anchor)].addcmul_(same, positive)
        gradient.scatter_add_(1, prototype, positive)
        with no_autocast(anchor):
            return gradient @ member, gradient.T @ anchor, None

"""Balanced contrastive loss: every class counts equally in the sum, and has a prototype."""

from typing import Any

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses.contrast import check_views
from longtail.precision import full_precision, no_autocast
from longtail.ranges import check_range
from longtail.targets import check_tensor, mean_over_rows


def balanced_contrastive_loss(
    features: Tensor, prototypes: Tensor, target: Tensor, *, temperature: float
) -> Tensor:
    """Contrast of every view with all others and the prototypes, averaged within each class.

    Equation 8 of Zhu et al., Balanced Contrastive Learning for Long-Tailed Visual Recognition, CVPR
    2022, arXiv 2207.09052. For an anchor of class y, the members are the other views and a
    prototype of every class; the exponentials in the sum are averaged over the members of each
    class (without the anchor in its own); positives are the other members of class y.
    Differences from the published code: any number of views; the average over a class is a weight
    of each member, in the log domain.

    Args:
        features: (batch, views, width), unit norm, any number of views.
        prototypes: (num_classes, width), unit norm.
        target: (batch,), class index in [0, num_classes), or -100 for a sample that is neither
            anchor nor member.
        temperature: above 0, divides.

    Returns: scalar, nats per view, mean over all views.

    Raises: ValueError: when the temperature is not above 0, or an argument has the wrong type,
        shape or values.

    Examples:
        >>> features = torch.eye(2)[:, None].expand(2, 2, 2)  # two images, two equal views each
        >>> balanced_contrastive_loss(features, torch.eye(2), torch.tensor([0, 1]), temperature=1.0)
        tensor(0.3133)
    """
    check_range("temperature of balanced_contrastive_loss", temperature, above=0)
    check_tensor("balanced_contrastive_loss", "features", features)
    check_tensor("balanced_contrastive_loss", "prototypes", prototypes, features.device)
    labels, counts = check_views("balanced_contrastive_loss", features, target, len(prototypes))
    if prototypes.ndim != 2 or prototypes.shape[1] != features.shape[2]:
        raise InputError(
            f"prototypes of balanced_contrastive_loss must be (num_classes, {features.shape[2]}), "
            f"got {tuple(prototypes.shape)}"
        )
    anchor = full_precision(features).flatten(0, 1)
    member = torch.cat([anchor, full_precision(prototypes)])
    nats: Tensor = _Contrast.apply(anchor / temperature, member, labels, counts)[0]
    return mean_over_rows(nats, counts)


class BalancedContrastiveLoss(nn.Module):
    """Balanced contrastive loss, the contrastive term of BCL.

    See `balanced_contrastive_loss`; BCL adds it to the logit-adjusted cross-entropy of a
    classifier, whose logits then express the uniform prior.

    Args:
        temperature: above 0, divides.

    Examples:
        >>> loss = BalancedContrastiveLoss(temperature=1.0)
        >>> loss(torch.eye(2)[:, None].expand(2, 2, 2), torch.eye(2), torch.tensor([0, 1]))
        tensor(0.3133)
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        check_range("temperature of BalancedContrastiveLoss", temperature, above=0)
        self.temperature = temperature

    def forward(self, features: Tensor, prototypes: Tensor, target: Tensor) -> Tensor:
        """Scalar, nats per view; arguments as in `balanced_contrastive_loss`."""
        return balanced_contrastive_loss(features, prototypes, target, temperature=self.temperature)


class _Contrast(torch.autograd.Function):
    """Nats of each anchor, from one matrix of similarities that is modified in place.

    Members are the anchors, then the prototypes. In every row, each has weight 1 / |A_j|, with
    |A_j| the size of its class including the prototype: an offset of its column. Only in the rows
    of its own class, where the anchor is left out, the weight is 1 / (|A_j| - 1): there the offset
    is raised, for the block of anchors (N, N) and one prototype per row. The further results are
    for `backward`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(anchor: Tensor, member: Tensor, labels: Tensor, counts: Tensor) -> tuple[Any, ...]:
        rows = len(anchor)
        offset, lift, same, others, log_count = _class_weights(anchor, member, labels, counts)
        prototype = rows + labels[:, None]
        with no_autocast(anchor):
            scores = torch.addmm(offset, anchor, member.T)
            among = scores[:, :rows]
            own = scores.gather(1, prototype)
            positives = torch.linalg.vecdot(among, same) + own.squeeze(1)
        mean = positives / others + log_count[labels]

        among.addcmul_(same, lift)
        among.masked_fill_(~counts, -torch.inf)
        scores.diagonal().fill_(-torch.inf)
        scores.scatter_(1, prototype, own + lift)
        peak = scores.amax(1, keepdim=True)
        weight = scores.sub_(peak).exp_()
        total = weight.sum(1)
        return peak.squeeze(1) + total.log() - mean, weight, total, same, others

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # no zeros for the results without a gradient
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        anchor, member, labels, counts, weight, total, same, others = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a higher derivative, which needs the weights' graph
            weight = _weights(anchor, member, labels, counts)
            total = weight.sum(1)
        gradient = weight * (grad / total)[:, None]
        positive = -(grad / others)[:, None]
        gradient[:, : len(anchor)].addcmul_(same, positive)
        gradient.scatter_add_(1, len(anchor) + labels[:, None], positive)
        with no_autocast(anchor):
            return gradient @ member, gradient.T @ anchor, None, None


def _class_weights(
    anchor: Tensor, member: Tensor, labels: Tensor, counts: Tensor
) -> tuple[Tensor, ...]:
    """Quantities that depend on the classes only.

    Returns: offset of each column, (N + C,); how far it is raised in the rows of its own class,
        (N, 1); which anchors are positives of each other, (N, N); members of each anchor's class
        but itself, (N,); log of the members of each class, (C,).
    """
    counted = counts.to(anchor)
    count = anchor.new_ones(len(member) - len(anchor)).index_add(0, labels, counted)
    log_count = count.log()
    others = count[labels] - counted
    lift = (log_count[labels] - others.log())[:, None]
    same = ((labels[:, None] == labels) & counts).to(anchor).fill_diagonal_(0.0)
    return -torch.cat([log_count[labels], log_count]), lift, same, others, log_count


def _weights(anchor: Tensor, member: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Exponentials of all scores, relative to the largest of a row, differentiable."""
    rows = len(anchor)
    offset, lift, same, *_ = _class_weights(anchor, member, labels, counts)
    raised = torch.cat([same * lift, torch.zeros_like(member[:, 0]).expand(rows, -1)[:, rows:]], 1)
    raised = raised.scatter_add(1, rows + labels[:, None], lift) + offset
    itself = torch.eye(rows, dtype=torch.bool, device=anchor.device)
    left_out = torch.cat([itself | ~counts, torch.zeros_like(raised[:, rows:]).bool()], dim=1)
    with no_autocast(anchor):
        scores = (anchor @ member.T + raised).masked_fill(left_out, -torch.inf)
    return (scores - scores.detach().amax(1, keepdim=True)).exp()

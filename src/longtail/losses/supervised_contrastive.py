"""Supervised contrastive loss: views of one class attract, all others repel."""

import torch
from torch import Tensor, nn

from longtail.losses.contrast import check_views, contrast_nats
from longtail.precision import full_precision, no_autocast
from longtail.ranges import check_range
from longtail.targets import mean_over_rows


def supervised_contrastive_loss(features: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """Contrast of every view with all others, with those of its own class as positives.

    Equation 2 (L_out) of Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, arXiv
    2004.11362, with every view of the batch as anchor and member.
    Differences from the published code: an anchor without positives adds 0, where the code has 0/0
    (its later version does the same as here).

    Args:
        features: (batch, views, width), unit norm.
        target: (batch,), class index, 0 or more, or -100 for a sample that is neither anchor nor
            member.
        temperature: above 0, divides.

    Returns: scalar, nats per view, mean over all views.

    Raises: ValueError: when the temperature is not above 0, or an argument has the wrong type,
        shape or values.

    Examples:
        >>> features = torch.eye(2)[:, None].expand(2, 2, 2)  # two images, two equal views each
        >>> supervised_contrastive_loss(features, torch.tensor([0, 1]), temperature=1.0)
        tensor(0.5514)
    """
    check_range("temperature of supervised_contrastive_loss", temperature, above=0)
    labels, counts = check_views("supervised_contrastive_loss", features, target)
    anchor = full_precision(features).flatten(0, 1)
    with no_autocast(anchor):
        similarity = (anchor / temperature) @ anchor.T
    left_out = torch.eye(len(anchor), dtype=torch.bool, device=anchor.device) | ~counts
    positive = (labels[:, None] == labels) & ~left_out
    log_weight = torch.zeros_like(similarity).masked_fill(left_out, -torch.inf)
    nats = contrast_nats(similarity, log_weight, positive.to(similarity))
    return mean_over_rows(nats, counts)


class SupervisedContrastiveLoss(nn.Module):
    """Supervised contrastive loss.

    See `supervised_contrastive_loss`.

    Args:
        temperature: above 0, divides.

    Examples:
        >>> loss = SupervisedContrastiveLoss(temperature=1.0)
        >>> loss(torch.eye(2)[:, None].expand(2, 2, 2), torch.tensor([0, 1]))
        tensor(0.5514)
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        check_range("temperature of SupervisedContrastiveLoss", temperature, above=0)
        self.temperature = temperature

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Scalar, nats per view; arguments as in `supervised_contrastive_loss`."""
        return supervised_contrastive_loss(features, target, temperature=self.temperature)

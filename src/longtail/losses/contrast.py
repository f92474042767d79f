"""Checks for the contrastive losses, and an anchor's nats from its row of similarities."""

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.targets import check_labels, check_tensor


def contrast_nats(similarity: Tensor, log_weight: Tensor, positive: Tensor) -> Tensor:
    """Mean over an anchor's positives of -log(exp(similarity) / weighted sum over all members).

    Args:
        similarity: (anchors, members), already divided by the temperature.
        log_weight: (anchors, members), natural logarithm of each member's weight in the sum;
            -inf leaves it out.
        positive: (anchors, members), weight of each positive in the mean, 0 for the rest.

    Returns: (anchors,), nats; 0 for an anchor without positives.

    Examples:
        >>> similarity = torch.zeros(1, 3)
        >>> contrast_nats(similarity, torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor([1.0986])
    """
    weight = positive.sum(1)
    alone = weight == 0
    # An anchor that is alone in its batch has an empty sum, -inf, whose slope would be NaN.
    log_weight = log_weight.masked_fill(alone[:, None], 0.0)
    log_sum = torch.logsumexp(similarity + log_weight, dim=1)
    mean = (similarity * positive).sum(1) / weight.masked_fill(alone, 1.0)
    return torch.where(alone, 0.0, log_sum - mean)


def check_views(
    name: str, features: Tensor, target: Tensor, num_classes: int | None = None
) -> tuple[Tensor, Tensor]:
    """The class of each view as int64, and which views count, (batch views,) each.

    Raises: ValueError: when an argument has the wrong type or shape, with both shapes, or a target
        is not a class index.
    """
    check_tensor(name, "features", features)
    check_tensor(name, "target", target, features.device)
    if features.ndim != 3 or target.shape != features.shape[:1]:
        raise InputError(
            f"features and target of {name} must be (batch, views, width) and (batch,), "
            f"got {tuple(features.shape)} and {tuple(target.shape)}"
        )
    target, counts = check_labels(name, "target", target, num_classes)
    views = features.shape[1]
    return target.repeat_interleave(views), counts.repeat_interleave(views)

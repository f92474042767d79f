"""PaCo: contrast of a queue's keys with the classifier's weights as learned class centres."""

import math

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses.contrast import contrast_nats
from longtail.precision import full_precision, no_autocast
from longtail.prior import ClassPrior, check_prior
from longtail.ranges import check_range
from longtail.targets import check_labels, check_tensor, mean_over_rows

# As in the published code, so that its values are reproduced to the last digits.
PRIOR_EPSILON = 1e-9


def paco_loss(
    features: Tensor,
    labels: Tensor,
    logits: Tensor,
    log_prior: Tensor,
    *,
    queue_size: int,
    alpha: float,
    beta: float,
    gamma: float,
    temperature: float,
) -> Tensor:
    """Contrast of each first view with second views, the queue and the classes' centres.

    Equation 4 of Cui et al., Parametric Contrastive Learning, ICCV 2021, arXiv 2107.12028. Members
    of an anchor's row are the classes, with logit-adjusted logits, and all features but the
    anchor's own, with similarities over the temperature, which enter the sum gamma times; positives
    are the anchor's class, with weight beta, and the features of that class, with weight alpha.
    Differences from the published code: empty slots of a queue, with label -1, do not count. The
    1e-9 on each probability is from the code.

    Args:
        features: (2 batch + queue_size, width), unit norm: first views, second views, queue.
        labels: (2 batch + queue_size,), class index of each feature; -100 for a sample
            that is neither anchor nor member; -1 for empty slots of the queue.
        logits: (batch, num_classes), of the first views, natural-log scores.
        log_prior: (num_classes,), natural logarithm of the training set's prior.
        queue_size: number of queue entries at the end of `features`.
        alpha: weight of a positive feature, 0 or more.
        beta: weight of the positive class centre, above 0.
        gamma: weight of features in the sum, 0 or more.
        temperature: above 0, divides the similarities.

    Returns: scalar, nats per anchor, mean over the batch.

    Raises: ValueError: when a setting is out of range, or an argument has the wrong type, shape or
        values.

    Examples:
        >>> log_prior = ClassPrior([1, 1]).log_prior
        >>> features, labels = torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1])
        >>> settings = dict(alpha=0.05, beta=1.0, gamma=1.0, temperature=0.2)
        >>> paco_loss(features, labels, torch.eye(2), log_prior, queue_size=0, **settings)
        tensor(4.4953)
    """
    _check_settings("paco_loss", alpha, beta, gamma, temperature)
    check_tensor("paco_loss", "log_prior", log_prior)
    check_tensor("paco_loss", "features", features)
    check_tensor("paco_loss", "labels", labels, features.device)
    check_tensor("paco_loss", "logits", logits, features.device)
    batch = len(logits)
    if len(features) != 2 * batch + queue_size or labels.shape != features.shape[:1]:
        raise InputError(
            f"features and labels of paco_loss must be (2 * {batch} + {queue_size}, width) and "
            f"({2 * batch + queue_size},), got {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    if logits.shape != (batch, len(log_prior)):
        raise InputError(
            f"logits of paco_loss must be (batch, {len(log_prior)}), got {tuple(logits.shape)}"
        )
    of_views, counts = check_labels("paco_loss", "labels", labels[: 2 * batch], len(log_prior))
    labels = torch.cat([torch.where(counts, of_views, -1), labels[2 * batch :].long()])
    features, logits = full_precision(features), full_precision(logits)
    with no_autocast(features):
        similarity = (features[:batch] / temperature) @ features.T
    centres = logits + (log_prior.exp() + PRIOR_EPSILON).log().to(logits)

    target, counts = of_views[:batch], counts[:batch]
    left_out = (labels < 0).repeat(batch, 1).fill_diagonal_(True)
    positive = torch.zeros_like(similarity).masked_fill_(target[:, None] == labels, alpha)
    positive.masked_fill_(left_out, 0.0)
    log_gamma = math.log(gamma) if gamma else -torch.inf
    log_weight = torch.full_like(similarity, log_gamma).masked_fill_(left_out, -torch.inf)
    centre = torch.zeros_like(centres).scatter_(1, target[:, None], beta)
    nats = contrast_nats(
        torch.cat([centres, similarity], dim=1),
        torch.cat([torch.zeros_like(centres), log_weight], dim=1),
        torch.cat([centre, positive], dim=1),
    )
    return mean_over_rows(nats, counts)


class PaCoLoss(nn.Module):
    """Parametric contrastive loss.

    See `paco_loss`. The raw logits express the uniform prior.

    Args:
        prior: class prior of the training set.
        alpha: weight of a positive feature, 0 or more.
        beta: weight of the positive class centre, above 0.
        gamma: weight of features in the sum, 0 or more.
        temperature: above 0, divides the similarities.

    Attributes:
        log_prior: (num_classes,), buffer.

    Raises: ValueError: when a setting is out of range.

    Examples:
        >>> loss = PaCoLoss(ClassPrior([1, 1]))
        >>> labels = torch.tensor([0, 1, 0, 1])
        >>> loss(torch.eye(2).repeat(2, 1), labels, torch.eye(2))
        tensor(4.4953)
    """

    log_prior: Tensor

    def __init__(
        self,
        prior: ClassPrior,
        *,
        alpha: float = 0.05,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        check_prior("prior of PaCoLoss", prior)
        _check_settings("PaCoLoss", alpha, beta, gamma, temperature)
        self.register_buffer("log_prior", prior.log_prior.clone())
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.temperature = temperature

    def forward(self, features: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
        """Scalar, nats per anchor; as in `paco_loss`, features after two views are the queue."""
        for what, value in {"features": features, "logits": logits}.items():
            check_tensor("PaCoLoss", what, value)
        return paco_loss(
            features,
            labels,
            logits,
            self.log_prior,
            queue_size=len(features) - 2 * len(logits),
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            temperature=self.temperature,
        )


def _check_settings(name: str, alpha: float, beta: float, gamma: float, temperature: float) -> None:
    check_range(f"temperature of {name}", temperature, above=0)
    check_range(f"alpha of {name}", alpha, least=0)
    check_range(f"beta of {name}", beta, above=0)
    check_range(f"gamma of {name}", gamma, least=0)

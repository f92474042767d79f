"""Gaussian mixture likelihood: a contrastive loss on the class scores of a class-wise queue."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from longtail.errors import InputError
from longtail.losses.base import check_batch
from longtail.losses.class_scores import attach_temperature, check_keys, scores_with_and_without
from longtail.losses.distillation import distillation_nats
from longtail.precision import full_precision
from longtail.prior import ClassPrior, check_prior
from longtail.ranges import check_range
from longtail.targets import check_indices, check_tensor, mean_over_rows

DISTILLATION_TEMPERATURE = 4.0


def gml_loss(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    logits: Tensor,
    target: Tensor,
    log_prior: Tensor,
    log_temperature: Tensor,
    *,
    query_index: Tensor | None = None,
    key_index: Tensor | None = None,
    teacher_logits: Tensor | None = None,
    alpha: float = 0.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    logit_scale: float = 30.0,
) -> Tensor:
    """Mutual-information loss of GML: classifier, class scores of the keys, teacher.

    Suh and Seo, Long-tailed Recognition by Mutual Information Maximization between Latent Features
    and Ground-truth Labels, ICML 2023, arXiv 2305.01160:
    gamma L_sup + beta (L_con + L_con_T) + alpha L_div, where L_sup and L_con are logit-adjusted
    cross-entropies of the cosine logits and of the class scores over all keys; L_con_T is that of
    the class scores without the image's own keys, and trains the temperature alone, as L_con
    trains the network alone; L_div is the divergence from the teacher at temperature 4.
    Differences from the published code: class scores in the log domain (see `class_scores`); a
    class without keys for a row is left out of the row's softmax, and if that class is the target
    the row does not count in that term, whose mean is over the rows that do (0 if none does), where
    the code has 0/0.

    Args:
        query: (batch, width), unit norm.
        key: (keys, width), unit norm, in any order.
        key_labels: (keys,), class index of each key; keys with a label outside [0, num_classes) do
            not count.
        logits: (batch, num_classes), cosines, before `logit_scale`.
        target: (batch,), class index in [0, num_classes), or -100 for an ignored sample.
        log_prior: (num_classes,), natural logarithm of the training set's prior.
        log_temperature: scalar or (1,), natural logarithm of the temperature, learned.
        query_index: (batch,), index of each query's image; with `key_index`, it determines which
            keys are a query's own. Both None: none are.
        key_index: (keys,), index of each key's image; given exactly if `query_index` is.
        teacher_logits: (batch, num_classes), the teacher's cosines, before `logit_scale`; given
            exactly if alpha is not 0.
        alpha: weight of L_div.
        beta: weight of L_con and L_con_T.
        gamma: weight of L_sup.
        logit_scale: multiplies the cosines: one over T_s.

    Returns: scalar, nats per sample, mean over the batch.

    Raises: ValueError: when an argument has the wrong type, shape or values, only one of
        query_index and key_index is given, or teacher_logits is missing although alpha is not 0,
        or given although it is.

    Examples:
        >>> prior, unit = ClassPrior([9, 1]), torch.eye(2)
        >>> target = torch.tensor([0, 1])
        >>> gml_loss(unit, unit, target, unit, target, prior.log_prior, torch.tensor(0.1).log())
        tensor(0.0004)
    """
    check_tensor("gml_loss", "log_prior", log_prior)
    key_labels = check_keys("gml_loss", query, key, key_labels)
    target, counts = check_batch("gml_loss", logits, target, len(log_prior))
    check_tensor("gml_loss", "logits", logits, query.device)
    if len(query) != len(target):
        raise InputError(
            f"query and target of gml_loss must have the same batch, "
            f"got {tuple(query.shape)} and {tuple(target.shape)}"
        )
    query_index, key_index = _check_indices(query, key, query_index, key_index)
    if teacher_logits is not None and not alpha:
        raise InputError(
            f"alpha of gml_loss must be above 0 where teacher_logits is given, got {alpha:g}"
        )

    logits = full_precision(logits) * logit_scale
    loss = logits.new_zeros(())
    if gamma:
        nats = cross_entropy(logits + log_prior.to(logits), target, reduction="none")
        loss = gamma * mean_over_rows(nats, counts)
    if beta:
        log_temperature = log_temperature.reshape(())
        every, others, slope = scores_with_and_without(
            query,
            key,
            key_labels,
            len(log_prior),
            log_temperature,
            query_index=query_index,
            key_index=key_index,
        )
        others = attach_temperature(others.detach(), slope, log_temperature)
        terms = [_score_loss(scores, target, counts, log_prior) for scores in (every, others)]
        loss = loss + beta * (terms[0] + terms[1])
    if alpha:
        if teacher_logits is None:
            raise InputError(f"teacher_logits of gml_loss must be given where alpha is {alpha}")
        check_tensor("gml_loss", "teacher_logits", teacher_logits, logits.device)
        if teacher_logits.shape != logits.shape:
            raise InputError(
                f"logits and teacher_logits of gml_loss must have the same shape, "
                f"got {tuple(logits.shape)} and {tuple(teacher_logits.shape)}"
            )
        teacher_logits = full_precision(teacher_logits) * logit_scale
        nats = distillation_nats(logits, teacher_logits, DISTILLATION_TEMPERATURE)
        loss = loss + alpha * mean_over_rows(nats, counts)
    return loss


def _check_indices(
    query: Tensor, key: Tensor, query_index: Tensor | None, key_index: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The indices as int64."""
    if query_index is None and key_index is None:
        return None, None
    if query_index is None or key_index is None:
        missing = "query_index" if query_index is None else "key_index"
        raise InputError(
            f"query_index and key_index of gml_loss must both be given, got no {missing}"
        )
    check_tensor("gml_loss", "query_index", query_index, query.device)
    check_tensor("gml_loss", "key_index", key_index, query.device)
    if query_index.shape != query.shape[:1] or key_index.shape != key.shape[:1]:
        raise InputError(
            f"query_index and key_index of gml_loss must have shapes ({len(query)},) and "
            f"({len(key)},), got {tuple(query_index.shape)} and {tuple(key_index.shape)}"
        )
    return (
        check_indices("gml_loss", "query_index", query_index, of="image"),
        check_indices("gml_loss", "key_index", key_index, of="image"),
    )


def _score_loss(scores: Tensor, target: Tensor, counts: Tensor, log_prior: Tensor) -> Tensor:
    """Logit-adjusted cross-entropy of class scores, over the rows whose target has a key."""
    counts = counts & (scores.detach().gather(1, target[:, None]).squeeze(1) > -torch.inf)
    # A row that does not count gets finite scores, since the gradient of -inf would be NaN.
    scores = torch.where(counts[:, None], scores + log_prior.to(scores), 0.0)
    return mean_over_rows(cross_entropy(scores, target, reduction="none"), counts)


class GMLLoss(nn.Module):
    """Gaussian mixture likelihood, with its learned temperature.

    See `gml_loss`. The cosine logits times `logit_scale` express the uniform prior. Keep
    `log_temperature` out of the weight decay.

    Args:
        prior: class prior of the training set.
        temperature: initial value of the learned temperature, above 0.
        alpha: weight of the divergence from the teacher; teacher logits are given exactly if not 0.
        beta: weight of the contrastive terms.
        gamma: weight of the classifier's cross-entropy.
        logit_scale: multiplies the cosines.

    Attributes:
        log_prior: (num_classes,), buffer.
        log_temperature: scalar, parameter, natural logarithm of the temperature.

    Raises: ValueError: when the temperature or the scale is not above 0.

    Examples:
        >>> loss = GMLLoss(ClassPrior([9, 1]), temperature=0.1)
        >>> unit, target = torch.eye(2), torch.tensor([0, 1])
        >>> loss(unit, unit, target, unit, target).requires_grad
        True
    """

    log_prior: Tensor

    def __init__(
        self,
        prior: ClassPrior,
        *,
        temperature: float = 0.1,
        alpha: float = 0.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        logit_scale: float = 30.0,
    ) -> None:
        super().__init__()
        check_prior("prior of GMLLoss", prior)
        for name, value in {"temperature": temperature, "logit_scale": logit_scale}.items():
            check_range(f"{name} of GMLLoss", value, above=0)
        for name, value in {"alpha": alpha, "beta": beta, "gamma": gamma}.items():
            check_range(f"{name} of GMLLoss", value, least=0)
        self.register_buffer("log_prior", prior.log_prior.clone())
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.logit_scale = logit_scale

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        key_labels: Tensor,
        logits: Tensor,
        target: Tensor,
        *,
        query_index: Tensor | None = None,
        key_index: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """Scalar, nats per sample; arguments as in `gml_loss`."""
        return gml_loss(
            query,
            key,
            key_labels,
            logits,
            target,
            self.log_prior,
            self.log_temperature,
            query_index=query_index,
            key_index=key_index,
            teacher_logits=teacher_logits,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            logit_scale=self.logit_scale,
        )

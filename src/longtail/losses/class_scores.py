"""Class scores: the likelihood of queries under the keys of each class."""

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.losses.segmented_scores import scores_by_class, segmented_scores
from longtail.precision import full_precision, no_autocast
from longtail.ranges import check_range
from longtail.targets import check_indices, check_tensor


def class_scores(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    temperature: float | Tensor,
    *,
    exclude: Tensor | None = None,
) -> Tensor:
    """Log mean exp of the similarities of each query to each class's keys.

    The class score l_c of Suh and Seo, Long-tailed Recognition by Mutual Information Maximization
    between Latent Features and Ground-truth Labels, ICML 2023, arXiv 2305.01160:
    score[b, c] = log mean over keys k of class c of exp(query[b] . k / temperature).
    Differences from the published code: the reduction is made per class in the log domain, in
    float32 or better, so a far class keeps its finite score where the code has log 0; memory grows
    with batch times keys, not with keys times classes. Second derivatives are not implemented:
    asking for them raises an error.

    Args:
        query: (batch, width), unit norm for the score to be a likelihood.
        key: (keys, width), in any order, which does not affect the cost.
        key_labels: (keys,), class index of each key; keys with a label outside [0, num_classes),
            such as -1, do not count.
        num_classes: number of classes.
        temperature: above 0, divides; a tensor gets a gradient if it requires one.
        exclude: (batch, keys), boolean, true if a key does not count for a query.

    Returns: (batch, num_classes), natural-log scores; -inf, without a gradient, if a class has no
        key for a query.

    Raises: ValueError: when an argument has the wrong type or shape, or the temperature, as a
        number, is not above 0.

    Examples:
        >>> key = torch.eye(3)
        >>> class_scores(key[:1], key, torch.tensor([0, 2, 2]), 3, temperature=1.0)
        tensor([[1., -inf, 0.]])
    """
    key_labels = check_keys("class_scores", query, key, key_labels)
    if exclude is not None and exclude.shape != (len(query), len(key)):
        raise InputError(
            f"exclude of class_scores must be (batch, keys) = {(len(query), len(key))}, "
            f"got {tuple(exclude.shape)}"
        )
    if not isinstance(temperature, Tensor):
        check_range("temperature of class_scores", temperature, above=0)
    log_temperature = torch.as_tensor(temperature, dtype=torch.float64).log()
    _, scores, slope = scores_with_and_without(
        query, key, key_labels, num_classes, log_temperature, exclude=exclude
    )
    return attach_temperature(scores, slope, log_temperature)


def check_keys(name: str, query: Tensor, key: Tensor, key_labels: Tensor) -> Tensor:
    """The labels of the keys as int64.

    Raises: ValueError: when queries, keys and labels have the wrong types or shapes, with the
        shapes.
    """
    check_tensor(name, "query", query)
    check_tensor(name, "key", key, query.device)
    check_tensor(name, "key_labels", key_labels, query.device)
    if query.ndim != 2 or key.ndim != 2 or query.shape[1] != key.shape[1]:
        raise InputError(
            f"query and key of {name} must be (batch, width) and (keys, width), "
            f"got {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if key_labels.shape != key.shape[:1]:
        raise InputError(
            f"key_labels of {name} must have a label for each of {len(key)} keys, "
            f"got shape {tuple(key_labels.shape)}"
        )
    return check_indices(name, "key_labels", key_labels)


def scores_with_and_without(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    log_temperature: Tensor,
    *,
    exclude: Tensor | None = None,
    query_index: Tensor | None = None,
    key_index: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Class scores over all keys and without the excluded ones, from one matrix product.

    The excluded pairs are those of `exclude`, or those with the same number in `query_index`
    (batch,) and `key_index` (keys,). Gradients reach query and key, but not the temperature, which
    is left to the caller, with the slope.

    Returns: scores over all keys, scores without the excluded ones, and the derivative of the
        latter with respect to `log_temperature` as a constant (0 where the score is -inf), each
        (batch, num_classes).
    """
    query, key = full_precision(query), full_precision(key)
    query = query * torch.exp(-log_temperature.detach()).to(query)
    key = key.to(query)
    counts = (key_labels >= 0) & (key_labels < num_classes)
    segment = torch.where(counts, key_labels, num_classes)
    with no_autocast(query):
        # Without a gradient, the function is called directly: the first call of a custom operator
        # imports the compiler, which takes seconds.
        tracked = query.requires_grad or key.requires_grad or torch.compiler.is_compiling()
        scores = segmented_scores if tracked else scores_by_class
        every, kept, slope = scores(
            query, key, segment, num_classes, exclude, query_index, key_index
        )[:3]
    return every.T, kept.T, slope.detach().T


def attach_temperature(scores: Tensor, slope: Tensor, log_temperature: Tensor) -> Tensor:
    """The same scores, with the slope as their derivative with respect to the log temperature."""
    if not log_temperature.requires_grad:
        return scores
    zero = log_temperature - log_temperature.detach()
    return scores + slope * zero.to(slope)

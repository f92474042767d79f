"""Class scores: how likely each class's keys make each query, in one matrix product."""

from importlib.util import find_spec

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.losses.class_scores_plain import plain_scores, scores_by_class
from longtail.precision import full_precision, no_autocast

HAS_TRITON = find_spec("triton") is not None


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
    Departs from the published code in: the reduction is made class by class in the log domain, in
    float32 or better, so a far class keeps its finite score where the code has log 0; memory does
    not grow with keys times classes.

    Args:
        query: (batch, width), unit norm for the score to be a likelihood.
        key: (keys, width), in any order; no order costs more than another.
        key_labels: (keys,), class of each key; a key whose label lies outside [0, num_classes),
            -1 say, counts for nothing.
        num_classes: number of classes.
        temperature: above 0, divides; gradients reach it where it is a tensor that wants them.
        exclude: (batch, keys), boolean, true where a query leaves out a key.

    Returns: (batch, num_classes), natural-log scores; -inf where a class has no key for a query,
        with no gradient.

    Raises: ValueError: when the shapes do not fit or the temperature, as a number, is not above 0.

    Example:
        >>> key = torch.eye(3)
        >>> class_scores(key[:1], key, torch.tensor([0, 2, 2]), 3, temperature=1.0)
        tensor([[1., -inf, 0.]])
    """
    check_keys("class_scores", query, key, key_labels)
    if exclude is not None and exclude.shape != (len(query), len(key)):
        raise InputError(
            f"exclude of class_scores must be (batch, keys) = {(len(query), len(key))}, "
            f"got {tuple(exclude.shape)}"
        )
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise InputError(f"temperature of class_scores must be > 0, got {temperature}")
    log_temperature = torch.as_tensor(temperature, dtype=torch.float64).log()
    _, scores, slope = scores_with_and_without(
        query, key, key_labels, num_classes, log_temperature, exclude=exclude
    )
    return attach_temperature(scores, slope, log_temperature)


def check_keys(name: str, query: Tensor, key: Tensor, key_labels: Tensor) -> None:
    """Raises a ValueError that shows the shapes when queries, keys and labels do not fit."""
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

    Excluded are the pairs of `exclude`, or those with the same number in `query_index` (batch,)
    and `key_index` (keys,), which costs no memory of batch times keys. Gradients reach query and
    key, not the temperature: that is left to the caller, who has the slope for it.

    Returns: scores over all keys, scores without the excluded ones, and the derivative of the
        latter by `log_temperature` as a constant (0 where the score is -inf), each
        (batch, num_classes).
    """
    query, key = full_precision(query), full_precision(key)
    query = query * torch.exp(-log_temperature.detach()).to(query)
    key = key.to(query)
    counts = (key_labels >= 0) & (key_labels < num_classes)
    segment = torch.where(counts, key_labels, num_classes)
    with no_autocast(query):
        if query.is_cuda and query.dtype == torch.float32 and HAS_TRITON and exclude is None:
            from longtail.losses.class_scores_triton import fused_scores

            every, kept, slope = fused_scores(
                query, key, segment, num_classes, query_index, key_index
            )[:3]
        else:
            # Without a gradient the function itself: the first call of a custom operator imports
            # the compiler, which takes seconds.
            tracked = query.requires_grad or key.requires_grad or torch.compiler.is_compiling()
            scores = plain_scores if tracked else scores_by_class
            every, kept, slope = scores(
                query, key, segment, num_classes, exclude, query_index, key_index
            )[:3]
    return every.T, kept.T, slope.detach().T


def attach_temperature(scores: Tensor, slope: Tensor, log_temperature: Tensor) -> Tensor:
    """The same scores, with the slope as their derivative by the log temperature."""
    if not log_temperature.requires_grad:
        return scores
    zero = log_temperature - log_temperature.detach()
    return scores + slope * zero.to(slope)

"""Class scores: how likely each class's keys make each query, in one matrix product."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from longtail.losses.precision import full_precision, no_autocast


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

    Raises: ValueError: when the shapes do not fit.

    Example:
        >>> key = torch.eye(3)
        >>> class_scores(key[:1], key, torch.tensor([0, 2, 2]), 3, temperature=1.0)
        tensor([[1., -inf, 0.]])
    """
    check_keys("class_scores", query, key, key_labels)
    if exclude is not None and exclude.shape != (len(query), len(key)):
        raise ValueError(
            f"exclude of class_scores must be (batch, keys) = {(len(query), len(key))}, "
            f"got {tuple(exclude.shape)}"
        )
    log_temperature = torch.as_tensor(temperature, dtype=torch.float64).log()
    _, scores, slope = scores_with_and_without(
        query, key, key_labels, num_classes, log_temperature, exclude=exclude
    )
    return attach_temperature(scores, slope, log_temperature)


def check_keys(name: str, query: Tensor, key: Tensor, key_labels: Tensor) -> None:
    """Raises a ValueError that shows the shapes when queries, keys and labels do not fit."""
    if query.ndim != 2 or key.ndim != 2 or query.shape[1] != key.shape[1]:
        raise ValueError(
            f"query and key of {name} must be (batch, width) and (keys, width), "
            f"got {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if key_labels.shape != key.shape[:1]:
        raise ValueError(
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
    with no_autocast(query):
        every, kept, slope, _, _, _ = _scores(
            query, key.to(query), key_labels, num_classes, exclude, query_index, key_index
        )
    return every.T, kept.T, slope.detach().T


def attach_temperature(scores: Tensor, slope: Tensor, log_temperature: Tensor) -> Tensor:
    """The same scores, with the slope as their derivative by the log temperature."""
    if not log_temperature.requires_grad:
        return scores
    zero = log_temperature - log_temperature.detach()
    return scores + slope * zero.to(slope)


# From here on matrices are (keys, batch) and (classes, batch): a class's keys are then rows, and
# torch's scatter by rows is a vectorised, deterministic segment reduction on the CPU. Keys that
# count for nothing fall into a row of their own behind the classes. Custom operators, because the
# number of excluded pairs depends on the data: torch.compile takes each as one node, unbroken.


class _Pairs(NamedTuple):
    """Excluded pairs of key and query, and the distinct (class, query) cells they fall in."""

    keys: Tensor  # (pairs,)
    queries: Tensor  # (pairs,)
    cells: Tensor  # (cells,), ascending, class * batch + query
    cell_of: Tensor  # (pairs,), position in cells

    @classmethod
    def find(
        cls,
        segment: Tensor,
        num_classes: int,
        batch: int,
        exclude: Tensor | None,
        query_index: Tensor | None,
        key_index: Tensor | None,
    ) -> "_Pairs":
        if exclude is not None:
            queries, keys = exclude.nonzero(as_tuple=True)
        elif query_index is not None and key_index is not None:
            # Few keys share a number with any query: only those are compared with all of them.
            known = query_index.sort().values
            place = torch.searchsorted(known, key_index).clamp_(max=batch - 1)
            candidates = (known[place] == key_index).nonzero().flatten()
            hit, queries = (key_index[candidates, None] == query_index).nonzero(as_tuple=True)
            keys = candidates[hit]
        else:
            keys = queries = segment.new_empty(0)
        counting = segment[keys] < num_classes
        keys, queries = keys[counting], queries[counting]
        cells, cell_of = torch.unique(segment[keys] * batch + queries, return_inverse=True)
        return cls(keys, queries, cells, cell_of)

    def merge(self, own: Tensor, peak: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Highest similarity, sum and old share of the sum once the excluded are put back.

        The largest similarity of a cell is often the excluded one, by far: so neither can stand
        for the other, and both sums are kept relative to their own peaks.
        """
        total = total.view(-1)[self.cells]
        old = peak.view(-1)[self.cells].masked_fill(total == 0, -torch.inf)
        highest = old.scatter_reduce(0, self.cell_of, own, "amax")
        scale = torch.exp(old - highest)
        merged = (total * scale).index_add_(0, self.cell_of, torch.exp(own - highest[self.cell_of]))
        return highest, merged, scale / merged


def _segments(key_labels: Tensor, num_classes: int) -> Tensor:
    """Row of each key: its class, or the one behind the classes where it counts for nothing."""
    counts = (key_labels >= 0) & (key_labels < num_classes)
    return torch.where(counts, key_labels, num_classes)


@torch.library.custom_op("longtail::class_scores", mutates_args=())
def _scores(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    exclude: Tensor | None,
    query_index: Tensor | None,
    key_index: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scores over all keys, those without the excluded, their slope; weight, peak and total.

    Peak and total (classes + 1, batch) are the largest similarity and the sum of weights of a
    class, weight (keys, batch) is exp(similarity - peak); all without the excluded keys, whose
    weight is 0. A class with nothing left has peak and total 0.
    """
    batch = len(query)
    segment = _segments(key_labels, num_classes)
    pairs = _Pairs.find(segment, num_classes, batch, exclude, query_index, key_index)
    similarity = key @ query.T
    own = similarity[pairs.keys, pairs.queries]
    similarity[pairs.keys, pairs.queries] = -torch.inf

    shape = (num_classes + 1, batch)
    rows = segment[:, None].expand_as(similarity)
    peak = similarity.new_full(shape, -torch.inf).scatter_reduce_(0, rows, similarity, "amax")
    peak.masked_fill_(peak == -torch.inf, 0.0)
    weight = peak.index_select(0, segment)
    torch.sub(similarity, weight, out=weight).exp_()
    total = similarity.new_zeros(shape).scatter_add_(0, rows, weight)

    similarity[pairs.keys, pairs.queries] = 0.0  # -inf times a weight of 0 would be NaN
    slope = similarity.new_zeros(shape).scatter_add_(0, rows, similarity.mul_(weight))
    slope = slope.div_(total).masked_fill_(total == 0, 0.0).neg_()

    count = similarity.new_zeros(len(total)).index_add_(0, segment, similarity.new_ones(len(key)))
    kept = total.log().add_(peak).sub_(count.clamp(min=1).log_()[:, None])
    every = kept.clone()
    if len(pairs.keys):
        highest, merged, _ = pairs.merge(own, peak, total)
        log_count = count[pairs.cells // batch].log()
        every.view(-1)[pairs.cells] = highest + merged.log() - log_count
        left = count[pairs.cells // batch] - pairs.cell_of.bincount()
        kept.view(-1)[pairs.cells] += log_count - left.clamp(min=1).log()
    return every[:-1], kept[:-1], slope[:-1], weight, peak, total


@_scores.register_fake
def _(
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    num_classes: int,
    exclude: Tensor | None,
    query_index: Tensor | None,
    key_index: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def empty(rows: int) -> Tensor:
        return query.new_empty(rows, len(query))

    classes = num_classes
    return (
        *(empty(classes), empty(classes), empty(classes)),
        *(empty(len(key)), empty(classes + 1), empty(classes + 1)),
    )


@torch.library.custom_op("longtail::class_scores_backward", mutates_args=())
def _similarity_gradient(
    grad_every: Tensor | None,
    grad_kept: Tensor | None,
    query: Tensor,
    key: Tensor,
    key_labels: Tensor,
    exclude: Tensor | None,
    query_index: Tensor | None,
    key_index: Tensor | None,
    weight: Tensor,
    peak: Tensor,
    total: Tensor,
) -> Tensor:
    """Gradient by the similarities (keys, batch) from those by the scores (classes, batch)."""
    num_classes, batch = len(total) - 1, len(query)
    segment = _segments(key_labels, num_classes)
    share = total[:-1].reciprocal().masked_fill_(total[:-1] == 0, 0.0)
    factor = torch.zeros_like(total)  # the row of keys that count for nothing stays 0
    if grad_kept is not None:
        factor[:-1] += grad_kept * share
    if grad_every is None:
        return factor.index_select(0, segment).mul_(weight)

    pairs = _Pairs.find(segment, num_classes, batch, exclude, query_index, key_index)
    own = (key[pairs.keys] * query[pairs.queries]).sum(1)
    highest, merged, left = pairs.merge(own, peak, total)
    share.view(-1)[pairs.cells] = left
    factor[:-1] += grad_every * share
    gradient = factor.index_select(0, segment).mul_(weight)
    own_share = torch.exp(own - highest[pairs.cell_of]) / merged[pairs.cell_of]
    gradient[pairs.keys, pairs.queries] = grad_every[segment[pairs.keys], pairs.queries] * own_share
    return gradient


@_similarity_gradient.register_fake
def _(grad_every: Tensor | None, *args: Tensor | None) -> Tensor:
    weight = args[-3]
    assert weight is not None
    return torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, key_labels, _, *exclusion = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, key_labels, *exclusion, *output[3:])


def _backward(
    ctx: Any, grad_every: Tensor | None, grad_kept: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    query, key = ctx.saved_tensors[:2]
    with no_autocast(query):
        gradient = _similarity_gradient(grad_every, grad_kept, *ctx.saved_tensors)
        grad_query = gradient.T @ key if ctx.needs_input_grad[0] else None
        grad_key = gradient @ query if ctx.needs_input_grad[1] else None
    return grad_query, grad_key, None, None, None, None, None


_scores.register_autograd(_backward, setup_context=_save)

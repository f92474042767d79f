"""Class scores by torch's own operations: the reference, and the path wherever Triton has none.

Matrices are (keys, batch) and (classes, batch): a class's keys are then rows, and torch's scatter
by rows is a vectorised, deterministic segment reduction on the CPU. `segment` (keys,) says a key's
row: its class, or one more row behind the classes where the key counts for nothing. Pairs of key
and query are named by their place in the flattened (keys, batch) matrix, their class and query by
a cell of (classes, batch). These are custom operators, because the number of excluded pairs depends
on the data: torch.compile takes each as one node, unbroken.
"""

from typing import Any

import torch
from torch import Tensor

from longtail.precision import no_autocast


def _excluded_places(
    segment: Tensor,
    num_classes: int,
    batch: int,
    exclude: Tensor | None,
    query_index: Tensor | None,
    key_index: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Places of the excluded pairs, and their cells, (pairs,) each."""
    if exclude is not None:
        queries, keys = exclude.nonzero(as_tuple=True)
    elif query_index is not None and key_index is not None:
        # Few keys share a number with any query. A table of the numbers' low bits finds those that
        # may, and only they are compared with all queries.
        known = torch.zeros(1 << 16, dtype=torch.bool, device=segment.device)
        known.index_fill_(0, query_index & 0xFFFF, True)
        candidates = known.index_select(0, key_index & 0xFFFF).nonzero().squeeze(1)
        same = key_index.index_select(0, candidates)[:, None] == query_index
        found, queries = same.nonzero(as_tuple=True)
        keys = candidates.index_select(0, found)
    else:
        nothing = segment.new_empty(0)
        return nothing, nothing
    places = keys * batch + queries
    cells = segment.index_select(0, keys) * batch + queries
    counting = cells < num_classes * batch
    return places[counting], cells[counting]


def _put_back(
    own: Tensor, cells: Tensor, peak: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Puts the excluded similarities `own` (pairs,) back into the sums of their `cells`.

    An image's own key is often the nearest by far: relative to it the others would vanish, and
    relative to them it would overflow. So the sums of both kinds keep peaks of their own.

    Returns: the distinct cells, ascending, with the number of pairs, the log sum and the share of
        a weight of 1 in each; the share of each pair.
    """
    cells, cell_of, pairs = torch.unique(cells, return_inverse=True, return_counts=True)
    total = total.view(-1).index_select(0, cells)
    old = peak.view(-1).index_select(0, cells).masked_fill_(total == 0, -torch.inf)
    highest = old.scatter_reduce(0, cell_of, own, "amax")
    own_weight = torch.exp(own - highest.index_select(0, cell_of))
    scale = torch.exp(old - highest)
    total = (total * scale).index_add_(0, cell_of, own_weight)
    own_share = own_weight / total.index_select(0, cell_of)
    return cells, pairs, highest + total.log(), scale / total, own_share


def scores_by_class(
    query: Tensor,
    key: Tensor,
    segment: Tensor,
    num_classes: int,
    exclude: Tensor | None,
    query_index: Tensor | None,
    key_index: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scores over all keys, those without the excluded, slope; weight and shares for the gradient.

    The weight (keys, batch) times the share (classes, batch) of the one score or the other is a
    key's part in it; at an excluded pair the weight is that part itself, of the first score.
    """
    batch = len(query)
    places, cells = _excluded_places(segment, num_classes, batch, exclude, query_index, key_index)
    similarity = key @ query.T
    own = similarity.view(-1).index_select(0, places)
    similarity.view(-1).index_fill_(0, places, -torch.inf)

    rows = segment[:, None].expand_as(similarity)
    peak = similarity.new_full((num_classes + 1, batch), -torch.inf)
    peak.scatter_reduce_(0, rows, similarity, "amax")
    empty = peak == -torch.inf
    peak.masked_fill_(empty, 0.0)
    weight = peak.index_select(0, segment)
    torch.sub(similarity, weight, out=weight).exp_()
    total = torch.zeros_like(peak).scatter_add_(0, rows, weight)

    similarity.view(-1).index_fill_(0, places, 0.0)  # -inf times a weight of 0 would be NaN
    slope = torch.zeros_like(peak).scatter_add_(0, rows, similarity.mul_(weight))
    share = total.reciprocal().masked_fill_(empty, 0.0)
    slope.mul_(share).neg_()

    count = total.new_zeros(len(total)).index_add_(0, segment, total.new_ones(len(key)))
    log_count = count.clamp(min=1).log_()
    kept = total.log().add_(peak).sub_(log_count[:, None])
    every, share_of_every = kept.clone(), share.clone()
    if len(places):
        cells, pairs, log_sum, cell_share, own_share = _put_back(own, cells, peak, total)
        weight.view(-1).index_copy_(0, places, own_share)
        share_of_every.view(-1).index_copy_(0, cells, cell_share)
        classes = cells // batch
        log_count = log_count.index_select(0, classes)
        every.view(-1).index_copy_(0, cells, log_sum - log_count)
        left = (count.index_select(0, classes) - pairs).clamp_(min=1)
        kept.view(-1).index_add_(0, cells, log_count - left.log())
    return every[:-1], kept[:-1], slope[:-1], weight, share_of_every[:-1], share[:-1]


plain_scores = torch.library.custom_op("longtail::class_scores", mutates_args=())(scores_by_class)


@plain_scores.register_fake
def _(
    query: Tensor,
    key: Tensor,
    segment: Tensor,
    num_classes: int,
    exclude: Tensor | None,
    query_index: Tensor | None,
    key_index: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def empty(rows: int) -> Tensor:
        return query.new_empty(rows, len(query))

    c = num_classes
    return empty(c), empty(c), empty(c), empty(len(key)), empty(c), empty(c)


@torch.library.custom_op("longtail::class_scores_backward", mutates_args=())
def _similarity_gradient(
    grad_every: Tensor | None,
    grad_kept: Tensor | None,
    segment: Tensor,
    exclude: Tensor | None,
    query_index: Tensor | None,
    key_index: Tensor | None,
    weight: Tensor,
    share_of_every: Tensor,
    share_of_kept: Tensor,
) -> Tensor:
    """Gradient by the similarities (keys, batch) from those by the scores (classes, batch)."""
    num_classes, batch = share_of_kept.shape
    factor = weight.new_zeros(num_classes + 1, batch)  # 0 for keys that count for nothing
    if grad_every is not None:
        factor[:-1].addcmul_(grad_every, share_of_every)
    if grad_kept is not None:
        factor[:-1].addcmul_(grad_kept, share_of_kept)
    gradient = factor.index_select(0, segment).mul_(weight)
    places, cells = _excluded_places(segment, num_classes, batch, exclude, query_index, key_index)
    if grad_every is None:
        gradient.view(-1).index_fill_(0, places, 0.0)
    else:
        own = grad_every.reshape(-1).index_select(0, cells)
        own.mul_(weight.view(-1).index_select(0, places))
        gradient.view(-1).index_copy_(0, places, own)
    return gradient


@_similarity_gradient.register_fake
def _(grad_every: Tensor | None, *args: Tensor | None) -> Tensor:
    weight = args[-3]
    assert weight is not None
    return torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, segment, _, *exclusion = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, segment, *exclusion, *output[3:])


def _backward(
    ctx: Any, grad_every: Tensor | None, grad_kept: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    query, key, *saved = ctx.saved_tensors
    with no_autocast(query):
        gradient = _similarity_gradient(grad_every, grad_kept, *saved)
        grad_query = gradient.T @ key if ctx.needs_input_grad[0] else None
        grad_key = gradient @ query if ctx.needs_input_grad[1] else None
    return grad_query, grad_key, None, None, None, None, None


plain_scores.register_autograd(_backward, setup_context=_save)

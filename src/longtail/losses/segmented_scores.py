"""Class scores from one matrix of similarities and sums over its segments.

Matrices are (keys, batch) and (classes, batch), so that a class's keys are rows, and torch's
scatter by rows is a vectorised, deterministic segment reduction on the CPU. `segment` (keys,) is
the row of a key: its class, or one more row after the classes if the key does not count.

A query's own keys are left out in one of two ways. On the CPU the pairs are listed: each pair by
its index in the flattened (keys, batch) matrix, its class and query by a cell of (classes, batch).
On other devices, where the host would have to wait for the length of that list, a mask is used.

These are custom operators, because the number of pairs depends on the data: torch.compile takes
each as one node, without a graph break.
"""

from typing import Any

import torch
from torch import Tensor

from longtail.precision import no_autocast


def _segment_sums(
    similarity: Tensor, segment: Tensor, num_classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of exponentials over each segment, relative to its largest similarity.

    Returns: exponential of each similarity, relative to the peak, (keys, batch); peak of each
        segment, 0 where it is empty; sum of the exponentials; whether the segment is empty;
        (num_classes + 1, batch) each.
    """
    rows = segment[:, None].expand_as(similarity)
    peak = similarity.new_full((num_classes + 1, similarity.shape[1]), -torch.inf)
    peak.scatter_reduce_(0, rows, similarity, "amax")
    empty = peak == -torch.inf
    peak.masked_fill_(empty, 0.0)
    weight = peak.index_select(0, segment)
    torch.sub(similarity, weight, out=weight).exp_()
    total = torch.zeros_like(peak).scatter_add_(0, rows, weight)
    return weight, peak, total, empty


def _excluded_mask(
    exclude: Tensor | None, query_index: Tensor | None, key_index: Tensor | None
) -> Tensor | None:
    """Which pairs are excluded, (keys, batch) bool; None: none are."""
    if exclude is not None:
        return exclude.T
    if query_index is not None and key_index is not None:
        return key_index[:, None] == query_index
    return None


def _excluded_pairs(
    segment: Tensor,
    num_classes: int,
    batch: int,
    exclude: Tensor | None,
    query_index: Tensor | None,
    key_index: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Indices of the excluded pairs, and their cells, (pairs,) each."""
    if exclude is not None:
        queries, keys = exclude.nonzero(as_tuple=True)
    elif query_index is not None and key_index is not None:
        # Few keys share an image with any query. A table of the indices' low bits finds candidates,
        # and only these are compared with all queries.
        known = torch.zeros(1 << 16, dtype=torch.bool, device=segment.device)
        known.index_fill_(0, query_index & 0xFFFF, True)
        candidates = known.index_select(0, key_index & 0xFFFF).nonzero().squeeze(1)
        same = key_index.index_select(0, candidates)[:, None] == query_index
        found, queries = same.nonzero(as_tuple=True)
        keys = candidates.index_select(0, found)
    else:
        nothing = segment.new_empty(0)
        return nothing, nothing
    pairs = keys * batch + queries
    cells = segment.index_select(0, keys) * batch + queries
    counting = cells < num_classes * batch
    return pairs[counting], cells[counting]


def _put_back(
    own: Tensor, cells: Tensor, peak: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Adds the excluded similarities `own` (pairs,) back into the sums of their `cells`.

    An image's own key is often by far the nearest: relative to it the others would vanish, and
    relative to them it would overflow. So each of the two sums has its own peak.

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
    """Scores over all keys and without excluded ones, slope; weight and shares for the gradient.

    The weight (keys, batch) times the share (classes, batch) of a score is a key's part in it; for
    an excluded pair, the weight is its part in the first score.
    """
    similarity = key @ query.T
    if similarity.device.type != "cpu":
        mask = _excluded_mask(exclude, query_index, key_index)
        return scores_by_mask(similarity, segment, num_classes, mask)
    pairs = _excluded_pairs(segment, num_classes, len(query), exclude, query_index, key_index)
    return scores_by_pairs(similarity, segment, num_classes, *pairs)


segmented_scores = torch.library.custom_op("longtail::class_scores", mutates_args=())(
    scores_by_class
)


Scores = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def scores_by_pairs(
    similarity: Tensor, segment: Tensor, num_classes: int, pairs: Tensor, cells: Tensor
) -> Scores:
    """`scores_by_class` with the excluded pairs as a list; changes the similarities."""
    batch = similarity.shape[1]
    own = similarity.view(-1).index_select(0, pairs)
    similarity.view(-1).index_fill_(0, pairs, -torch.inf)
    weight, peak, total, empty = _segment_sums(similarity, segment, num_classes)

    similarity.view(-1).index_fill_(0, pairs, 0.0)  # -inf times a weight of 0 would be NaN
    rows = segment[:, None].expand_as(similarity)
    slope = torch.zeros_like(peak).scatter_add_(0, rows, similarity.mul_(weight))
    share = total.reciprocal().masked_fill_(empty, 0.0)
    slope.mul_(share).neg_()

    count = total.new_zeros(len(total)).index_add_(0, segment, total.new_ones(len(segment)))
    log_count = count.clamp(min=1).log_()
    kept = total.log().add_(peak).sub_(log_count[:, None])
    every, share_of_every = kept.clone(), share.clone()
    if len(pairs):
        cells, excluded, log_sum, cell_share, own_share = _put_back(own, cells, peak, total)
        weight.view(-1).index_copy_(0, pairs, own_share)
        share_of_every.view(-1).index_copy_(0, cells, cell_share)
        classes = cells // batch
        log_count = log_count.index_select(0, classes)
        every.view(-1).index_copy_(0, cells, log_sum - log_count)
        left = (count.index_select(0, classes) - excluded).clamp_(min=1)
        kept.view(-1).index_add_(0, cells, log_count - left.log())
    return every[:-1], kept[:-1], slope[:-1], weight, share_of_every[:-1], share[:-1]


def scores_by_mask(
    similarity: Tensor, segment: Tensor, num_classes: int, mask: Tensor | None
) -> Scores:
    """`scores_by_class` with the excluded pairs as a mask (keys, batch); does not wait."""
    rows = segment[:, None].expand_as(similarity)
    others = similarity if mask is None else similarity.masked_fill(mask, -torch.inf)
    weight, peak, total, empty = _segment_sums(others, segment, num_classes)
    share = total.reciprocal().masked_fill_(empty, 0.0)
    finite = similarity if mask is None else similarity.masked_fill(mask, 0.0)
    slope = torch.zeros_like(peak).scatter_add_(0, rows, finite * weight).mul_(share).neg_()
    log_sum = total.log().add_(peak)
    count = torch.zeros_like(total).scatter_add_(0, rows, torch.ones_like(similarity))
    log_count = count.clamp(min=1).log_()
    if mask is None:
        scores = log_sum - log_count
        return scores[:-1], scores[:-1].clone(), slope[:-1], weight, share[:-1], share[:-1].clone()

    own = similarity.masked_fill(~mask, -torch.inf)
    _, own_peak, own_total, _ = _segment_sums(own, segment, num_classes)
    log_sum_of_every = torch.logaddexp(log_sum, own_total.log().add_(own_peak))
    own_share = (own - log_sum_of_every.index_select(0, segment)).exp_()
    weight = torch.where(mask, own_share, weight)
    share_of_every = (peak - log_sum_of_every).exp_().masked_fill_(empty, 0.0)
    left = count.scatter_add(0, rows, -mask.to(count)).clamp_(min=1)
    every, kept = log_sum_of_every - log_count, log_sum - left.log()
    return every[:-1], kept[:-1], slope[:-1], weight, share_of_every[:-1], share[:-1]


@segmented_scores.register_fake
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
    """Gradient of the similarities (keys, batch) from those of the scores (classes, batch)."""
    factors = grad_every, grad_kept, segment, weight, share_of_every, share_of_kept
    if weight.device.type != "cpu":
        return gradient_by_mask(*factors, _excluded_mask(exclude, query_index, key_index))
    num_classes, batch = share_of_kept.shape
    pairs = _excluded_pairs(segment, num_classes, batch, exclude, query_index, key_index)
    return gradient_by_pairs(*factors, *pairs)


def _factor(
    grad_every: Tensor | None,
    grad_kept: Tensor | None,
    weight: Tensor,
    share_of_every: Tensor,
    share_of_kept: Tensor,
) -> Tensor:
    """Factor of the weights of each segment, (num_classes + 1, batch)."""
    num_classes, batch = share_of_kept.shape
    factor = weight.new_zeros(num_classes + 1, batch)  # 0 for keys that count for nothing
    if grad_every is not None:
        factor[:-1].addcmul_(grad_every, share_of_every)
    if grad_kept is not None:
        factor[:-1].addcmul_(grad_kept, share_of_kept)
    return factor


def gradient_by_pairs(
    grad_every: Tensor | None,
    grad_kept: Tensor | None,
    segment: Tensor,
    weight: Tensor,
    share_of_every: Tensor,
    share_of_kept: Tensor,
    pairs: Tensor,
    cells: Tensor,
) -> Tensor:
    """The gradient after `scores_by_pairs`."""
    factor = _factor(grad_every, grad_kept, weight, share_of_every, share_of_kept)
    gradient = factor.index_select(0, segment).mul_(weight)
    if grad_every is None:
        gradient.view(-1).index_fill_(0, pairs, 0.0)
    else:
        own = grad_every.reshape(-1).index_select(0, cells)
        own.mul_(weight.view(-1).index_select(0, pairs))
        gradient.view(-1).index_copy_(0, pairs, own)
    return gradient


def gradient_by_mask(
    grad_every: Tensor | None,
    grad_kept: Tensor | None,
    segment: Tensor,
    weight: Tensor,
    share_of_every: Tensor,
    share_of_kept: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """The gradient after `scores_by_mask`."""
    factor = _factor(grad_every, grad_kept, weight, share_of_every, share_of_kept)
    gradient = factor.index_select(0, segment)
    if mask is not None:
        own = torch.zeros_like(factor)
        if grad_every is not None:
            own[:-1] = grad_every
        gradient = torch.where(mask, own.index_select(0, segment), gradient)
    return gradient.mul_(weight)


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


segmented_scores.register_autograd(_backward, setup_context=_save)

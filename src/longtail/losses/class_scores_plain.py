"""Class scores by torch's own operations: the reference, and the path of every device but CUDA.

Matrices are (keys, batch) and (classes, batch): a class's keys are then rows, and torch's scatter
by rows is a vectorised, deterministic segment reduction on the CPU. `segment` (keys,) is a key's row:
its class, or one more row behind the classes where it counts for nothing. These are custom operators, because the number of
excluded pairs depends on the data: torch.compile takes each as one node, unbroken.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from longtail.losses.precision import no_autocast


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
            # Few keys share a number with any query. A table of the numbers' low bits finds those
            # that may, and only they are compared with all queries.
            known = torch.zeros(1 << 16, dtype=torch.bool, device=segment.device)
            known[query_index & 0xFFFF] = True
            candidates = known[key_index & 0xFFFF].nonzero().flatten()
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


@torch.library.custom_op("longtail::class_scores", mutates_args=())
def plain_scores(
    query: Tensor,
    key: Tensor,
    segment: Tensor,
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
    score = query.new_empty(num_classes, len(query))
    peak = query.new_empty(num_classes + 1, len(query))
    weight = query.new_empty(len(key), len(query))
    return (
        *(score, torch.empty_like(score), torch.empty_like(score)),
        *(weight, peak, torch.empty_like(peak)),
    )


@torch.library.custom_op("longtail::class_scores_backward", mutates_args=())
def _similarity_gradient(
    grad_every: Tensor | None,
    grad_kept: Tensor | None,
    query: Tensor,
    key: Tensor,
    segment: Tensor,
    exclude: Tensor | None,
    query_index: Tensor | None,
    key_index: Tensor | None,
    weight: Tensor,
    peak: Tensor,
    total: Tensor,
) -> Tensor:
    """Gradient by the similarities (keys, batch) from those by the scores (classes, batch)."""
    num_classes, batch = len(total) - 1, len(query)
    share = total[:-1].reciprocal().masked_fill_(total[:-1] == 0, 0.0)
    factor = torch.zeros_like(total)  # the row of keys that count for nothing stays 0
    if grad_kept is not None:
        torch.mul(grad_kept, share, out=factor[:-1])
    if grad_every is None:
        return factor.index_select(0, segment).mul_(weight)

    pairs = _Pairs.find(segment, num_classes, batch, exclude, query_index, key_index)
    own = (key[pairs.keys] * query[pairs.queries]).sum(1)
    highest, merged, left = pairs.merge(own, peak, total)
    share.view(-1)[pairs.cells] = left
    factor[:-1].addcmul_(grad_every, share)
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
    query, key, segment, _, *exclusion = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, segment, *exclusion, *output[3:])


def _backward(
    ctx: Any, grad_every: Tensor | None, grad_kept: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    query, key = ctx.saved_tensors[:2]
    with no_autocast(query):
        gradient = _similarity_gradient(grad_every, grad_kept, *ctx.saved_tensors)
        grad_query = gradient.T @ key if ctx.needs_input_grad[0] else None
        grad_key = gradient @ query if ctx.needs_input_grad[1] else None
    return grad_query, grad_key, None, None, None, None, None


plain_scores.register_autograd(_backward, setup_context=_save)

"""Class scores in fused Triton kernels, which never hold a (batch, keys) matrix.

Chosen by `class_scores` on CUDA in float32. Every kernel computes the similarities that it needs,
tile by tile, from query and key; memory is that of inputs and outputs and a few (classes, batch)
matrices. `class_scores_plain` is the reference and says what the results mean.

In the kernels b, k, c and d are positions in the batch, the keys, the classes and the width; keys
are visited in the `order` that sorts them by class, those of class c from offsets[c] on.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_B, BLOCK_K, BLOCK_D = 32, 32, 64
SPLITS = 16  # parts of the keys, each with its own sum for the query's gradient


@triton.jit
def _similarity_tile(
    query, key, b, k, batch, is_key, width, B: tl.constexpr, K: tl.constexpr, D: tl.constexpr
):
    """Similarities (B, K) of queries b and keys k."""
    tile = tl.zeros((B, K), dtype=tl.float32)
    for start in range(0, width, D):
        d = start + tl.arange(0, D)
        in_width = (d < width)[None, :]
        in_query = (b < batch)[:, None] & in_width
        q = tl.load(query + b[:, None] * width + d[None, :], mask=in_query, other=0.0)
        x = tl.load(
            key + k[:, None] * width + d[None, :], mask=is_key[:, None] & in_width, other=0.0
        )
        tile += tl.dot(q, tl.trans(x), input_precision="ieee")
    return tile


@triton.jit
def _own_tile(query_index, key_index, b, k, batch, is_key, INDEXED: tl.constexpr):
    """Whether queries b and keys k are of the same image: (B, K), or (1, 1) where none is."""
    if INDEXED:
        of_query = tl.load(query_index + b, mask=b < batch, other=0)
        of_key = tl.load(key_index + k, mask=is_key, other=0)
        own = of_query[:, None] == of_key[None, :]
    else:
        own = tl.zeros((1, 1), dtype=tl.int1)
    return own


@triton.jit
def _forward(
    query, key, order, offsets, query_index, key_index,
    every, kept, slope, log_sum_every, log_sum_kept, batch, width,
    INDEXED: tl.constexpr, B: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Scores of one class for B queries: sums relative to the largest similarity so far."""
    c = tl.program_id(0)
    b = tl.program_id(1) * B + tl.arange(0, B)
    first, last = tl.load(offsets + c), tl.load(offsets + c + 1)
    peak = tl.full((B,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((B,), dtype=tl.float32)
    peak_kept = tl.full((B,), float("-inf"), dtype=tl.float32)
    total_kept = tl.zeros((B,), dtype=tl.float32)
    moment = tl.zeros((B,), dtype=tl.float32)  # sum of weight times similarity
    count_kept = tl.zeros((B,), dtype=tl.float32)
    for start in range(first, last, K):
        position = start + tl.arange(0, K)
        is_key = position < last
        k = tl.load(order + position, mask=is_key, other=0)
        raw = _similarity_tile(query, key, b, k, batch, is_key, width, B, K, D)
        own = _own_tile(query_index, key_index, b, k, batch, is_key, INDEXED)

        tile = tl.where(is_key[None, :], raw, float("-inf"))
        higher = tl.maximum(peak, tl.max(tile, axis=1))
        weight = tl.exp(tile - higher[:, None])
        total = total * tl.exp(peak - higher) + tl.sum(weight, axis=1)
        peak = higher

        tile = tl.where(own, float("-inf"), tile)
        higher = tl.maximum(peak_kept, tl.max(tile, axis=1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # nothing kept so far
        weight = tl.exp(tile - base[:, None])
        scale = tl.exp(peak_kept - base)
        total_kept = total_kept * scale + tl.sum(weight, axis=1)
        moment = moment * scale + tl.sum(weight * raw, axis=1)
        count_kept += tl.sum(tl.where(tile == float("-inf"), 0.0, 1.0), axis=1)
        peak_kept = higher

    cell, in_batch = c * batch + b, b < batch
    log_sum = peak + tl.log(total)
    count = tl.maximum((last - first).to(tl.float32), 1.0)
    tl.store(log_sum_every + cell, log_sum, mask=in_batch)
    tl.store(every + cell, log_sum - tl.log(count), mask=in_batch)
    log_sum = peak_kept + tl.log(total_kept)
    tl.store(log_sum_kept + cell, log_sum, mask=in_batch)
    tl.store(kept + cell, log_sum - tl.log(tl.maximum(count_kept, 1.0)), mask=in_batch)
    mean = tl.where(total_kept > 0, moment / tl.where(total_kept > 0, total_kept, 1.0), 0.0)
    tl.store(slope + cell, -mean, mask=in_batch)


@triton.jit
def _gradient_tile(
    query, key, segment, query_index, key_index, grad_every, grad_kept, log_sum_every, log_sum_kept,
    b, k, batch, is_key, width,
    INDEXED: tl.constexpr, B: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Gradient by the similarities (B, K) of queries b and keys k."""
    tile = _similarity_tile(query, key, b, k, batch, is_key, width, B, K, D)
    own = _own_tile(query_index, key_index, b, k, batch, is_key, INDEXED)
    c = tl.load(segment + k, mask=is_key, other=0)
    cell = c[None, :] * batch + b[:, None]
    inside = is_key[None, :] & (b < batch)[:, None]
    # A log sum of +inf where there is nothing makes the share there 0.
    log_sum = tl.load(log_sum_every + cell, mask=inside, other=float("inf"))
    gradient = tl.exp(tile - log_sum) * tl.load(grad_every + cell, mask=inside, other=0.0)
    log_sum = tl.load(log_sum_kept + cell, mask=inside, other=float("inf"))
    log_sum = tl.where(own | (log_sum == float("-inf")), float("inf"), log_sum)
    gradient += tl.exp(tile - log_sum) * tl.load(grad_kept + cell, mask=inside, other=0.0)
    return gradient


@triton.jit
def _key_gradient(
    query, key, order, segment, offsets, query_index, key_index,
    grad_every, grad_kept, log_sum_every, log_sum_kept, grad_key, num_classes, batch, width,
    INDEXED: tl.constexpr, B: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Gradient of K keys, D of its columns."""
    last = tl.load(offsets + num_classes)
    position = tl.program_id(0) * K + tl.arange(0, K)
    is_key = position < last
    k = tl.load(order + position, mask=is_key, other=0)
    d = tl.program_id(1) * D + tl.arange(0, D)
    result = tl.zeros((K, D), dtype=tl.float32)
    for start in range(0, batch, B):
        b = start + tl.arange(0, B)
        tile = _gradient_tile(
            query, key, segment, query_index, key_index,
            grad_every, grad_kept, log_sum_every, log_sum_kept,
            b, k, batch, is_key, width, INDEXED, B, K, D,
        )  # fmt: skip
        in_query = (b < batch)[:, None] & (d < width)[None, :]
        q = tl.load(query + b[:, None] * width + d[None, :], mask=in_query, other=0.0)
        result += tl.dot(tl.trans(tile), q, input_precision="ieee")
    in_result = is_key[:, None] & (d < width)[None, :]
    tl.store(grad_key + k[:, None] * width + d[None, :], result, mask=in_result)


@triton.jit
def _query_gradient(
    query, key, order, segment, offsets, query_index, key_index,
    grad_every, grad_kept, log_sum_every, log_sum_kept, parts, num_classes, batch, width, part,
    INDEXED: tl.constexpr, B: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Gradient of B queries, D of its columns, from `part` of the keys."""
    b = tl.program_id(0) * B + tl.arange(0, B)
    d = tl.program_id(1) * D + tl.arange(0, D)
    first = tl.program_id(2) * part
    last = tl.minimum(first + part, tl.load(offsets + num_classes))
    result = tl.zeros((B, D), dtype=tl.float32)
    for start in range(first, last, K):
        position = start + tl.arange(0, K)
        is_key = position < last
        k = tl.load(order + position, mask=is_key, other=0)
        tile = _gradient_tile(
            query, key, segment, query_index, key_index,
            grad_every, grad_kept, log_sum_every, log_sum_kept,
            b, k, batch, is_key, width, INDEXED, B, K, D,
        )  # fmt: skip
        in_key = is_key[:, None] & (d < width)[None, :]
        x = tl.load(key + k[:, None] * width + d[None, :], mask=in_key, other=0.0)
        result += tl.dot(tile, x, input_precision="ieee")
    row = tl.program_id(2) * batch + b
    in_result = (b < batch)[:, None] & (d < width)[None, :]
    tl.store(parts + row[:, None] * width + d[None, :], result, mask=in_result)


def _sorted_by_class(segment: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Order (keys,) that sorts the keys by class, and where each class starts in it.

    Keys that count for nothing come last, behind offsets[num_classes].
    """
    sorted_segment, order = segment.sort(stable=True)
    classes = torch.arange(num_classes + 1, device=segment.device)
    return order, torch.searchsorted(sorted_segment, classes)


@torch.library.custom_op("longtail::fused_class_scores", mutates_args=())
def fused_scores(
    query: Tensor,
    key: Tensor,
    segment: Tensor,
    num_classes: int,
    query_index: Tensor | None,
    key_index: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scores over all keys, those without the excluded, slope; the logs of the first two's sums."""
    query, key = query.contiguous(), key.contiguous()
    order, offsets = _sorted_by_class(segment, num_classes)
    results = [query.new_empty(num_classes, len(query)) for _ in range(5)]
    indexed, *index = _indices(query_index, key_index, order)
    with torch.cuda.device_of(query):
        _forward[num_classes, triton.cdiv(len(query), BLOCK_B)](
            query, key, order, offsets, *index,
            *results, *query.shape, indexed, BLOCK_B, BLOCK_K, _block_d(query),
        )  # fmt: skip
    every, kept, slope, log_sum_every, log_sum_kept = results
    return every, kept, slope, log_sum_every, log_sum_kept


@fused_scores.register_fake
def _(
    query: Tensor, key: Tensor, segment: Tensor, num_classes: int, *_: Tensor | None
) -> tuple[Tensor, ...]:
    return tuple(query.new_empty(num_classes, len(query)) for _ in range(5))


@torch.library.custom_op("longtail::fused_class_scores_backward", mutates_args=())
def _fused_gradients(
    grad_every: Tensor,
    grad_kept: Tensor,
    query: Tensor,
    key: Tensor,
    segment: Tensor,
    query_index: Tensor | None,
    key_index: Tensor | None,
    log_sum_every: Tensor,
    log_sum_kept: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients by query and key from those by the scores (classes, batch)."""
    query, key = query.contiguous(), key.contiguous()
    num_classes, (batch, width) = len(grad_every), query.shape
    order, offsets = _sorted_by_class(segment, num_classes)
    indexed, *index = _indices(query_index, key_index, order)
    inputs = (
        query, key, order, segment.contiguous(), offsets, *index,
        grad_every.contiguous(), grad_kept.contiguous(), log_sum_every, log_sum_kept,
    )  # fmt: skip
    block_d = _block_d(query)
    columns = triton.cdiv(width, block_d)
    sizes = (indexed, BLOCK_B, BLOCK_K, block_d)
    grad_key = torch.zeros_like(key)
    parts = query.new_empty(SPLITS, batch, width)
    part = triton.cdiv(len(key), SPLITS * BLOCK_K) * BLOCK_K
    with torch.cuda.device_of(query):
        _key_gradient[triton.cdiv(len(key), BLOCK_K), columns](
            *inputs, grad_key, num_classes, batch, width, *sizes
        )
        _query_gradient[triton.cdiv(batch, BLOCK_B), columns, SPLITS](
            *inputs, parts, num_classes, batch, width, part, *sizes
        )
    return parts.sum(0), grad_key


@_fused_gradients.register_fake
def _(grad_every: Tensor, grad_kept: Tensor, *args: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(args[0]), torch.empty_like(args[1])


def _indices(
    query_index: Tensor | None, key_index: Tensor | None, instead: Tensor
) -> tuple[bool, Tensor, Tensor]:
    """Whether images are named, and their numbers as the kernels read them."""
    if query_index is None or key_index is None:
        return False, instead, instead
    return True, query_index.contiguous(), key_index.contiguous()


def _block_d(query: Tensor) -> int:
    """Columns of a tile: a power of two that the matrix units take."""
    return int(min(BLOCK_D, max(16, triton.next_power_of_2(query.shape[1]))))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, segment, _, *index = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, segment, *index, *output[3:])


def _backward(
    ctx: Any, grad_every: Tensor | None, grad_kept: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    nothing = torch.zeros_like(ctx.saved_tensors[-1])
    grad_query, grad_key = _fused_gradients(
        nothing if grad_every is None else grad_every,
        nothing if grad_kept is None else grad_kept,
        *ctx.saved_tensors,
    )
    return grad_query, grad_key, None, None, None, None


fused_scores.register_autograd(_backward, setup_context=_save)

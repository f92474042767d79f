"""Checks of large logit matrices, and the blocks and the type in which they are processed."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from longtail.arrays import as_indices, as_tensor
from longtail.errors import InputError

Logits = Tensor | NDArray[np.floating]

# Entries of a block, few enough to stay in a CPU's cache through several passes, and its rows: a
# float32 product that sums over more of them loses digits.
BLOCK, ROWS = 1 << 20, 1 << 12
# Rows needed to tell probabilities from logits: in fewer, sums of 1 may be a coincidence.
PLENTY = 10
# Entries up to which a matrix is processed in float64; above, memory requires float32.
EXACT = 1 << 22


def row_blocks(matrix: Tensor) -> Iterator[slice]:
    """Slices of rows that cover (rows, columns), a million entries and 4,096 rows at most."""
    return blocks(len(matrix), matrix.shape[1])


def blocks(samples: int, columns: int) -> Iterator[slice]:
    """The same for a matrix that does not exist yet."""
    rows = max(1, min(ROWS, BLOCK // max(1, columns)))
    for start in range(0, samples, rows):
        yield slice(start, min(start + rows, samples))


def taken(matrix: Tensor, indices: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of all rows of a matrix, or of those at `indices`, none of which is a copy of all."""
    for rows in blocks(len(matrix) if indices is None else len(indices), matrix.shape[1]):
        yield rows, matrix[rows if indices is None else indices[rows]]


def as_logits(value: Logits, name: str, num_classes: int) -> Tensor:
    """The matrix as a tensor (samples, num_classes), without a copy.

    Raises: ValueError: when the shape is wrong, it is empty, or an entry is not finite.
    """
    logits = as_tensor(value, name)
    if not logits.is_floating_point():
        raise InputError(f"{name} must be floating-point, got {logits.dtype}")
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise InputError(
            f"{name} must have shape (samples, {num_classes}), got {tuple(logits.shape)}"
        )
    if len(logits) == 0:
        raise InputError(f"{name} must have at least one sample, got none")
    refuse_probabilities(logits, name)
    for rows in row_blocks(logits):
        fine = torch.isfinite(logits[rows]).all(dim=1)
        if not fine.all():
            row = int((~fine).nonzero()[0])
            bad = logits[rows][row]
            raise InputError(
                f"{name} must be finite, got {bad[~torch.isfinite(bad)][0].item()} "
                f"in row {rows.start + row}"
            )
    return logits


def refuse_probabilities(logits: Tensor, name: str) -> None:
    """Raises an error if rows of logits (..., num_classes) are probabilities instead.

    Checks whether the first thousand rows are all in [0, 1] with sum 1, and not all of 0 and 1.
    Fewer than ten rows are never rejected, since valid logits may look the same.
    """
    if not logits.numel() or logits.shape[-1] < 2:
        return
    first = logits.reshape(-1, logits.shape[-1])[:1000]
    if len(first) < PLENTY:
        return
    low, high = first.aminmax()
    if not bool((low >= 0) & (high <= 1)):  # NaN fails the comparison
        return
    fractions = bool(((first > 0) & (first < 1)).any())
    if fractions and bool(((first.double().sum(dim=-1) - 1).abs() < 0.01).all()):
        raise InputError(f"{name} must be logits, got probabilities; pass their logarithm")


def as_labels(value: ArrayLike | Tensor, name: str, samples: int, num_classes: int) -> Tensor:
    """The labels as int64 (samples,), on the CPU.

    Raises: ValueError: when the length is wrong or a label is not a class index.
    """
    labels = as_tensor(value, name).cpu()
    if labels.shape != (samples,):
        raise InputError(f"{name} must have shape ({samples},), got {tuple(labels.shape)}")
    return as_indices(labels, name, num_classes)


def working_type(logits: Tensor) -> torch.dtype:
    """Float64 for float64 input and for small matrices, else float32."""
    small = logits.numel() <= EXACT
    return torch.float64 if small or logits.dtype == torch.float64 else torch.float32

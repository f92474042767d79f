"""Conversion of arrays, columns and sequences to tensors."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from longtail.errors import InputError


def in_class_order(values: Any, name: str) -> Any:
    """A pandas Series of numbers per class in the order of the class indices; others unchanged.

    Args:
        values: a Series, indexed by class index, as `value_counts` returns it; or anything else.
        name: name in error messages.

    Raises:
        ValueError: when the index of a Series is not 0 to C - 1 in any order.
    """
    if not hasattr(values, "sort_index") or values.ndim != 1:
        return values
    index = values.index.tolist()
    if index == [*range(len(index))]:
        return values
    if {*index} != {*range(len(index))}:
        raise InputError(
            f"{name} must have the classes in order; the index of a Series must be 0 to "
            f"{len(index) - 1}, got {index[:3]}; to keep its order, use .to_numpy()"
        )
    return values.sort_index()


def as_tensor(values: ArrayLike | Tensor, name: str) -> Tensor:
    """Numbers as a tensor, without a copy where possible.

    Args:
        values: a tensor, which stays on its device, an array, a table's column or a sequence.
        name: name in error messages, for instance `counts of ClassPrior`.

    Raises:
        ValueError: when the values are not numbers.

    Examples:
        >>> import numpy as np
        >>> as_tensor(np.array([1, 2, 3], dtype=">i4")[::-1], "counts").tolist()
        [3, 2, 1]
    """
    if isinstance(values, Tensor):
        if values.is_meta:
            raise InputError(f"{name} must have values, got a tensor on the meta device")
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        got = repr(array.flat[0]) if array.size else array.dtype
        raise InputError(f"{name} must be numbers, got {got}")
    array = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    with warnings.catch_warnings():
        # An array read from a Parquet file may be read-only; it is only read here.
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.as_tensor(array)


def as_indices(values: Tensor, name: str, num_classes: int | None = None) -> Tensor:
    """Class indices as int64, any shape.

    Args:
        values: whole numbers of any type.
        name: name in error messages.
        num_classes: number of classes, C; default: one more than the largest index.

    Raises:
        ValueError: when one is not a whole number in [0, C).
    """
    if values.is_complex():
        raise InputError(f"{name} must be whole class indices, got {values.dtype}")
    if values.is_floating_point():
        odd = values[~((values == values.round()) & values.isfinite())]
        if len(odd):
            raise InputError(f"{name} must be whole class indices, got {odd[0].item():g}")
    indices = values.long()
    beyond = indices < 0 if num_classes is None else (indices < 0) | (indices >= num_classes)
    if len(wrong := beyond.flatten().nonzero().flatten()):
        row = int(wrong[0])
        rule = "be 0 or more" if num_classes is None else f"lie in [0, {num_classes})"
        raise InputError(f"{name} must {rule}, got {int(indices.flatten()[row])} in row {row}")
    return indices

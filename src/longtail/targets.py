"""Checks of the class indices of a batch, and which rows count."""

import torch
from torch import Tensor

from longtail.errors import InputError

IGNORE_INDEX = -100  # as in torch.nn.functional.cross_entropy


def check_tensor(name: str, what: str, value: object, device: torch.device | None = None) -> None:
    """Raises an error for anything but a tensor on the device.

    Args:
        name: the function or class, for the message.
        what: the argument, for the message.
        value: the argument's value.
        device: the device that it must be on; None: any.

    Raises: ValueError: for a list, an array or a tensor on another device.
    """
    if not isinstance(value, Tensor):
        raise InputError(f"{what} of {name} must be a torch.Tensor, got {type(value).__name__}")
    if device is not None and value.device != device:
        raise InputError(
            f"{what} of {name} must be on the device of the other arguments, {device}, "
            f"got {value.device}"
        )


def check_indices(name: str, what: str, labels: Tensor, *, of: str = "class") -> Tensor:
    """Indices of any integer type as int64; their values are not checked.

    Args:
        name: the function or class, for the message.
        what: the argument, for the message.
        labels: any shape.
        of: what they count, for the message.

    Raises: ValueError: for any other type.
    """
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise InputError(
            f"{what} of {name} must be {of} indices of an integer type, got {labels.dtype}"
        )
    return labels.long()


def check_labels(
    name: str, what: str, labels: Tensor, num_classes: int | None, *, ignore: bool = True
) -> tuple[Tensor, Tensor]:
    """Class indices as int64, and which rows count: all but those with IGNORE_INDEX.

    Values are checked on the CPU only: reading them would wait for any other device, and break the
    graph of `torch.compile`. Elsewhere, torch's own index checks apply.

    Args:
        name: the function or class, for the message.
        what: the argument, for the message.
        labels: (rows,), of any integer type.
        num_classes: number of classes; None: no upper bound.
        ignore: whether IGNORE_INDEX is allowed.

    Returns: (rows,) int64, with 0 where a row does not count, and (rows,) bool.

    Raises: ValueError: for labels that are not integers, or neither a class index nor IGNORE_INDEX.

    Examples:
        >>> target = torch.tensor([1, -100], dtype=torch.int32)
        >>> check_labels("loss", "target", target, 2)
        (tensor([1, 0]), tensor([ True, False]))
    """
    labels = check_indices(name, what, labels)
    counts = labels != IGNORE_INDEX if ignore else torch.ones_like(labels, dtype=torch.bool)
    if _readable(labels):
        limit = torch.iinfo(labels.dtype).max if num_classes is None else num_classes
        wrong = labels[counts & ((labels < 0) | (labels >= limit))]
        if len(wrong):
            rule = "0 or more" if num_classes is None else f"in [0, {num_classes})"
            rule += f", or {IGNORE_INDEX} for a row that does not count" if ignore else ""
            raise InputError(f"{what} of {name} must be {rule}, got {wrong[:5].tolist()}")
    return labels.masked_fill(~counts, 0), counts


def mean_over_rows(nats: Tensor, counts: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the rows that count; 0, with a gradient of 0, if none does.

    Args:
        nats: (rows,).
        counts: (rows,) bool.
        weight: (rows,), weight of each row; the mean is then over the sum of weights.

    Examples:
        >>> mean_over_rows(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]))
        tensor(1.5000)
    """
    nats = torch.where(counts, nats, 0.0)
    if weight is None:
        return nats.sum() / counts.sum().clamp(min=1)
    weight = torch.where(counts, weight.to(nats.dtype), 0.0)
    total = weight.sum()
    return (weight * nats).sum() / torch.where(total == 0, 1.0, total)


def _readable(labels: Tensor) -> bool:
    """Whether values can be read: not those on other devices, or of traced or mapped tensors."""
    return (
        not torch.compiler.is_compiling()
        and type(labels) is Tensor
        and labels.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(labels)
    )

"""Common code of the batched operations: a parameter per image, bytes, one call per operation."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from longtail.errors import InputError

ParameterisedOperation = Callable[[Tensor, Tensor], Tensor]


class Operation(Protocol):
    """A random operation on a batch: it draws a parameter for each image and keeps the shape.

    Parameters are drawn on the CPU and sent to the device of the images (`beside`), so that the
    same seed gives the same views on every device, and nothing waits for the device.

    Any hashable callable with this signature can be part of a `View`. Operations that do the same
    should compare equal, as frozen dataclasses do, since `make_views` runs equal ones in one pass.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Changes uint8 images (B, 3, H, W), on any device; `generator` is on the CPU."""
        ...


def check_batch(images: Tensor, generator: torch.Generator) -> None:
    """Checks the arguments of a view.

    Raises:
        ValueError: when the images are not uint8 (B, 3, H, W), or the generator is not on the CPU.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise InputError(
            f"images of a view must be uint8 (batch, 3, height, width), "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if generator.device.type != "cpu":
        raise InputError(
            f"generator of a view must be on the CPU, wherever the images are, "
            f"got one on {generator.device}"
        )


def beside(images: Tensor, drawn: Tensor) -> Tensor:
    """Sends parameters drawn on the CPU to the images' device, without waiting for it."""
    if images.device.type == "cuda":
        drawn = drawn.pin_memory()  # otherwise the copy waits for all earlier work of the device
    return drawn.to(images.device, non_blocking=True)


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draws from [low, high), on the CPU."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def per_image(name: str, value: Tensor, images: Tensor) -> Tensor:
    """Reshapes a parameter (B,) to (B, 1, 1, 1), in float32; checks its shape."""
    if value.shape != images.shape[:1]:
        raise InputError(
            f"{name} must hold one value for each of the {len(images)} images, "
            f"got shape {tuple(value.shape)}"
        )
    return value.to(torch.float32).view(-1, 1, 1, 1)


def to_bytes(values: Tensor) -> Tensor:
    """Clamps float values to [0, 255] and truncates them, as torchvision does."""
    # Via int16: both casts are vectorised on the CPU, while the direct one is not (3 times slower).
    return values.clamp_(0, 255).to(torch.int16).to(torch.uint8)


def choose(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """The changed image where `chosen` (B,), on any device, is true, else the original."""
    # Whole images are copied by index: `torch.where` on bytes is 5 times slower on the CPU.
    rows = torch.arange(len(images), device=chosen.device) + len(images) * chosen
    return torch.cat([images, changed]).index_select(0, beside(images, rows))


def apply_chosen(
    images: Tensor,
    choice: Tensor,
    parameters: Tensor,
    operations: Sequence[ParameterisedOperation | None],
) -> Tensor:
    """Applies to each image the operations chosen for it, stage by stage.

    In each stage the images are sorted by operation, and each operation runs once on its images.

    Args:
        images: (B, 3, H, W) uint8.
        choice: (stages, B) int64, index of the next of `operations`; on the CPU, as the host must
            know how many images each operation gets.
        parameters: (stages, B, P), passed to the operation as (images, P); on the CPU.
        operations: called as `operation(images, parameters)`; None leaves the images unchanged.

    Returns: (B, 3, H, W) uint8.
    """
    order = choice.argsort(dim=1, stable=True)
    position = order.argsort(dim=1)
    known = torch.arange(len(operations))
    sizes: list[list[int]] = (choice.unsqueeze(2) == known).sum(dim=1).tolist()
    parameters = parameters.gather(1, order.unsqueeze(2).expand_as(parameters))
    order, position, parameters = (beside(images, drawn) for drawn in (order, position, parameters))
    for stage, counts in enumerate(sizes):
        groups = images.index_select(0, order[stage]).split_with_sizes(counts)
        values = parameters[stage].split_with_sizes(counts)
        done = [
            operation(group, value) if operation is not None and len(group) else group
            for operation, group, value in zip(operations, groups, values, strict=True)
        ]
        images = torch.cat(done).index_select(0, position[stage])
    return images

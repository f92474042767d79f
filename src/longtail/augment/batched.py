"""Common code of the batched operations: a parameter per image, bytes, one call per operation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from longtail.errors import InputError

ParameterisedOperation = Callable[[Tensor, Tensor], Tensor]
T = TypeVar("T")


class Drawn(NamedTuple, Generic[T]):
    """A random operation whose parameters are drawn, for a batch to come.

    Attributes:
        parameters: on the CPU. Their shapes and types depend only on the shape of the images, so
            that those of several steps can be stacked.
        apply: called as `apply(images, parameters)`, with an iterator over the parameters on the
            device of the images. It takes as many as were drawn, so that operations can share one.
    """

    parameters: tuple[Tensor, ...]
    apply: Callable[..., T]

    def __call__(self, images: Tensor, *others: Tensor) -> T:
        """Sends the parameters to the device of the images, and applies the operation."""
        return self.apply(images, *others, iter(send(self.parameters, images.device)))


class Operation(ABC):
    """A random operation on a batch: it draws a parameter for each image and keeps the shape.

    Parameters are drawn on the CPU, so that the same seed gives the same views on every device, and
    before the images are there, so that those of many steps can be sent to the device at once.

    Operations of a `View` must be hashable. Those that do the same should compare equal, as frozen
    dataclasses do, since `make_views` runs equal ones in one pass.
    """

    @abstractmethod
    def draw(self, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
        """Draws the parameters for uint8 images of a shape (B, 3, H, W).

        Args:
            shape: shape of the images.
            generator: generator on the CPU; the only source of random numbers.
        """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Changes uint8 images (B, 3, H, W), on any device; `generator` is on the CPU."""
        return self.draw(images.shape, generator)(images)


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


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Sends tensors from the CPU to a device in one copy, without waiting for it."""
    sizes = [-(-tensor.nbytes // 16) * 16 for tensor in tensors]  # a number begins at its multiples

    def parts(buffer: Tensor) -> list[Tensor]:
        pairs = zip(buffer.split_with_sizes(sizes), tensors, strict=True)
        return [part[: like.nbytes].view(like.dtype).view(like.shape) for part, like in pairs]

    # A copy from memory that is not pinned waits for all earlier work of the device.
    buffer = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for part, tensor in zip(parts(buffer), tensors, strict=True):
        part.copy_(tensor)
    return parts(buffer.to(device, non_blocking=True))


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


def chosen_rows(chosen: Tensor) -> Tensor:
    """For `choose`: the row of each image, (B,) int64, the changed one where `chosen` is true."""
    return torch.arange(len(chosen), device=chosen.device) + len(chosen) * chosen


def choose(rows: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """The changed or the original image, as `chosen_rows` says."""
    # Whole images are copied by index: `torch.where` on bytes is 5 times slower on the CPU.
    return torch.cat([images, changed]).index_select(0, rows)


def chosen_operations(
    choice: Tensor, parameters: Tensor, operations: Sequence[ParameterisedOperation | None]
) -> Drawn[Tensor]:
    """Applies to each image the operations chosen for it, stage by stage.

    In each stage the images are sorted by operation, and each operation runs once on its images.

    Args:
        choice: (stages, B) int64, index of the next of `operations`; on the CPU, as the host must
            know how many images each operation gets.
        parameters: (stages, B, P), passed to the operation as (images, P); on the CPU.
        operations: called as `operation(images, parameters)`; None leaves the images unchanged.
    """
    order = choice.argsort(dim=1, stable=True)
    position = order.argsort(dim=1)
    known = torch.arange(len(operations))
    sizes: list[list[int]] = (choice.unsqueeze(2) == known).sum(dim=1).tolist()
    parameters = parameters.gather(1, order.unsqueeze(2).expand_as(parameters))

    def apply(images: Tensor, drawn: Iterator[Tensor]) -> Tensor:
        stages = zip(*islice(drawn, 3), sizes, strict=True)
        for order, position, parameters, counts in stages:
            groups = images.index_select(0, order).split_with_sizes(counts)
            values = parameters.split_with_sizes(counts)
            done = [
                operation(group, value) if operation is not None and len(group) else group
                for operation, group, value in zip(operations, groups, values, strict=True)
            ]
            images = torch.cat(done).index_select(0, position)
        return images

    return Drawn((order, position, parameters), apply)

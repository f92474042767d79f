"""Views (sequences of random augmentations) by name, and all views of a batch at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longtail.augment.batched import Drawn, Operation, check_batch
from longtail.augment.policies import AutoAugment
from longtail.augment.rand_augment import RandAugment
from longtail.augment.transforms import (
    ColorJitter,
    Cutout,
    RandomAffine,
    RandomBlur,
    RandomCrop,
    RandomFlip,
    RandomGreyscale,
    RandomResizedCrop,
)
from longtail.errors import InputError
from longtail.names import nearest
from longtail.ranges import check_range

AnyOperation = Callable[[Tensor, torch.Generator], Tensor]  # an `Operation`, or a function
LARGE = 96  # side from which views begin with a resized crop
VIEWS = {
    "none": "no augmentation",
    "weak": "random crop, flip",
    "jitter": "weak, then brightness, contrast and saturation jitter 0.4",
    "cutout": "weak, then Cutout",
    "auto": "weak, then AutoAugment (CIFAR-10 policy, filled with grey) and Cutout",
    "rand": "weak, then jitter 0.4 and RandAugment (timm's rand-n2-m10-mstd0.5)",
    "rand_stack": "rand with greyscale 0.2, and on large images blur 0.5, before RandAugment",
    "sim": "resized crop, flip, then jitter 0.4 with hue 0.1, and greyscale 0.2",
    "moco": "sim with crops of a fifth of the area or more, and blur 0.5",
    "shift": "small shifts, rotations and scales, no flip: for digits and letters",
}


@dataclass(frozen=True)
class View:
    """A random view of images: operations applied one after the other.

    Args:
        operations: called as `operation(images, generator)`; hashable. Those that are not an
            `Operation` draw when they are applied, from a generator of their own.

    Examples:
        >>> view = View((RandomCrop(4), RandomFlip(), Cutout(16)))
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> view(images, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 32, 32])
    """

    operations: tuple[AnyOperation, ...]

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draws the view of every image.

        Args:
            images: (B, 3, H, W) uint8.
            generator: generator on the CPU; the same state gives the same view, bit for bit.

        Returns: (B, 3, H, W) uint8.
        Raises: ValueError: when `images` is not such a batch, or the generator is not on the CPU.
        """
        return make_views(images, [self], generator)[0]

    def apart(self) -> tuple[RandomResizedCrop | None, "View"]:
        """The resized crop that the view begins with, if it does, and the rest.

        Large images are cropped to one size, once per view, by the processes that decode them; the
        rest of the view is made on the device.
        """
        if self.operations and isinstance(self.operations[0], RandomResizedCrop):
            return self.operations[0], View(self.operations[1:])
        return None, self


def named_view(name: str, size: int) -> View:
    """The view with this name, with parameters for images of a size.

    Padding is size / 8 and Cutout's side size / 2: 4 and 16 at the 32 pixels of CIFAR. Images of
    96 pixels and more are cropped by resizing instead of padding.

    Args:
        name: one of VIEWS.
        size: shorter side of the images, pixels.

    Raises: ValueError: when the name is unknown, or `size` is below 1.
    Examples:
        >>> named_view("weak", 32)
        View(operations=(RandomCrop(padding=4), RandomFlip(p=0.5)))
    """
    check_range("size of named_view", size, least=1, whole=True)
    large = size >= LARGE
    crop: Operation = RandomResizedCrop() if large else RandomCrop(size // 8)
    weak = (crop, RandomFlip())
    hole = Cutout(max(1, size // 2))
    kernel = size // 10 // 2 * 2 + 1
    blur = (RandomBlur(kernel),) if large else ()
    jitter, rand = ColorJitter(0.4, 0.4, 0.4, 0.0), RandAugment()
    sim = (ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), RandomGreyscale(0.2))  # as in SimCLR and BCL
    operations: dict[str, tuple[Operation, ...]] = {
        "none": (),
        "weak": weak,
        "jitter": (*weak, jitter),
        "cutout": (*weak, hole),
        "auto": (*weak, AutoAugment(fill=128), hole),  # as in all published code
        "rand": (*weak, jitter, rand),
        "rand_stack": (*weak, jitter, RandomGreyscale(0.2), *blur, rand),
        "sim": (RandomResizedCrop(), RandomFlip(), *sim),
        "moco": (
            RandomResizedCrop(scale=(0.2, 1.0)),
            RandomFlip(),
            *sim,
            RandomBlur(max(9, kernel)),
        ),
        "shift": (RandomCrop(size // 8), RandomAffine(10, scale=(0.9, 1.1))),
    }
    if name not in operations:
        hint = nearest(name, operations)
        raise InputError(f"views must be one of {list(VIEWS)}, got {name!r}{hint}")
    return View(operations[name])


def make_views(images: Tensor, views: Sequence[View], generator: torch.Generator) -> Tensor:
    """Draws several views of a batch.

    Views that begin with equal operations share them: these run once on the images of all views,
    not once per view. A call has a fixed cost, so many images at once, even those of several steps,
    are cheaper than a few.

    Args:
        images: (B, 3, H, W) uint8.
        views: V of them.
        generator: generator on the CPU; the same state gives the same views, bit for bit.

    Returns: (V, B, 3, H, W) uint8; always a copy.
    Raises: ValueError: when there is no view, `images` is not such a batch, or the generator is not
        on the CPU.
    Examples:
        >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> generator = torch.Generator().manual_seed(0)
        >>> make_views(images, [named_view("auto", 32)] * 3, generator).shape
        torch.Size([3, 4, 3, 32, 32])
    """
    if not views:
        raise InputError("views of make_views must hold at least one view, got none")
    check_batch(images, generator)
    return draw_views(images.shape, views, generator)(images)


def draw_views(
    shape: torch.Size, views: Sequence[View], generator: torch.Generator
) -> Drawn[Tensor]:
    """Draws several views of a batch to come, of which only the shape (B, 3, H, W) is known.

    See `make_views`, which makes them at once.
    """
    operations = [view.operations for view in views]
    drawn = [
        _draw(operation, torch.Size((members * shape[0], *shape[1:])), generator)
        for operation, members in _passes(operations)
    ]

    def apply(images: Tensor, parameters: Iterator[Tensor]) -> Tensor:
        check_batch(images, generator)
        runs = (lambda some, one=one: one.apply(some, parameters) for one in drawn)
        return _grow(torch.stack([images] * len(views)), operations, runs)

    return Drawn(tuple(parameter for one in drawn for parameter in one.parameters), apply)


def _draw(operation: AnyOperation, shape: torch.Size, generator: torch.Generator) -> Drawn[Tensor]:
    if isinstance(operation, Operation):
        return operation.draw(shape, generator)
    seed = int(torch.randint(2**62, (), generator=generator))

    def apply(images: Tensor, parameters: Iterator[Tensor]) -> Tensor:
        return operation(images, torch.Generator().manual_seed(seed))

    return Drawn((), apply)


def _passes(operations: list[tuple[AnyOperation, ...]]) -> Iterator[tuple[AnyOperation, int]]:
    """The operations in the order in which `_grow` runs them, each with its number of views."""
    for first in dict.fromkeys(rest[0] for rest in operations if rest):
        members = [rest[1:] for rest in operations if rest and rest[0] == first]
        yield first, len(members)
        yield from _passes(members)


def _grow(
    stack: Tensor,
    operations: list[tuple[AnyOperation, ...]],
    runs: Iterator[Callable[[Tensor], Tensor]],
) -> Tensor:
    """Runs each view's operations (V of them) on its images of the stack (V, B, 3, H, W)."""
    if all(rest == operations[0] for rest in operations):
        flat = stack.flatten(0, 1)
        for _ in operations[0]:
            flat = next(runs)(flat)
        return flat.view_as(stack)
    for first in dict.fromkeys(rest[0] for rest in operations if rest):
        members = [view for view, rest in enumerate(operations) if rest and rest[0] == first]
        # One view at a time: a list as an index is copied to the device, which waits for it.
        group = next(runs)(torch.cat([stack[view] for view in members]))
        rest = [operations[view][1:] for view in members]
        grown = _grow(group.view(-1, *stack.shape[1:]), rest, runs)
        for view, seen in zip(members, grown, strict=True):
            stack[view] = seen
    return stack

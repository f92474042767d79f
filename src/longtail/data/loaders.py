"""Batches of an epoch, from a tensor in memory or from files by worker processes."""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from longtail.data.dataset import Split
from longtail.data.images import UnreadableImagesError, reason_of
from longtail.data.samplers import Sampler, draw
from longtail.errors import InputError

Transform = Callable[[str], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of one step, on the device of the loader.

    Args:
        images: (B, 3, H, W) uint8, or (V, B, 3, H, W) where the transform makes several views.
        target: (B,) int64, class index.
        index: (B,) int64, place of each image in its source.
    """

    images: Tensor
    target: Tensor
    index: Tensor


class Batches(Protocol):
    """What a training loop knows of its loader."""

    def __len__(self) -> int:
        """Batches of an epoch."""

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the `first`; the same number gives the same batches."""


@dataclass(eq=False)
class Loader(ABC):
    """Batches of a split, in an order that follows from the seed and the epoch's number alone.

    Nothing is remembered between epochs, so a run that was killed sees the same batches again.
    Several processes share a global batch out in equal runs, the first to the first process:
    joined in rank order, what they see is exactly the batches that one process sees.

    Args:
        split: the images.
        batch_size: images of a step, over all processes.
        sampler: order of an epoch; `sequential` to evaluate.
        seed: of the order, and of the transform where there is one.
        device: where the batches go.
        drop_last: leave out a last batch that is not full.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        ValueError: when there would be no batch, or several processes would take different numbers
            of training steps.
    """

    split: Split
    batch_size: int
    _: KW_ONLY
    sampler: Sampler
    seed: int = 0
    device: torch.device | str = "cpu"
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Checks what would otherwise show after hours, or never."""
        if self.batch_size < 1:
            raise InputError(f"batch_size must be 1 or more, got {self.batch_size}")
        if self.drop_last and len(self.split) < self.batch_size:
            raise InputError(
                f"batch_size must be no more than the {len(self.split)} images where the last "
                f"batch is dropped unless full, got {self.batch_size}"
            )
        uneven = not self.drop_last or self.batch_size % self.world_size != 0
        if self.world_size > 1 and self.sampler != "sequential" and uneven:
            raise InputError(
                "several processes must take equal steps in training: drop_last must be set and "
                f"batch_size be a multiple of {self.world_size}, "
                f"got {self.drop_last} and {self.batch_size}"
            )

    def __len__(self) -> int:
        """Batches of an epoch that have an image for this process."""
        return len(list(self._shares()))

    @abstractmethod
    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the `first`; the same number gives the same batches."""

    def places(self) -> Tensor:
        """Places in an epoch's order of the images that this process sees, in that order."""
        return torch.tensor([place for share in self._shares() for place in share])

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        return draw(self.split.labels, self.sampler, generator)

    def _shares(self, first: int = 0) -> Iterator[range]:
        """Places in an epoch's order that this process sees, batch by batch."""
        images, size = len(self.split), self.batch_size
        end = images - images % size if self.drop_last else images
        for batch in range(first * size, end, size):
            stop = min(batch + size, end)
            # Rounded up: where there are fewer images than processes, the first ones have them.
            before, after = (
                batch - (batch - stop) * rank // self.world_size
                for rank in (self.rank, self.rank + 1)
            )
            if before < after:
                yield range(before, after)


def _leave_signals(worker: int) -> None:
    """Lets a worker outlive a signal to the group: the training ends it once it has saved."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@dataclass(eq=False)
class InMemoryLoader(Loader):
    """Batches of images that lie in one tensor, which moves to the device once.

    Raises:
        ValueError: when the split's images are not in memory, and as `Loader` does.
    """

    def __post_init__(self) -> None:
        """Moves the images to the device."""
        super().__post_init__()
        if self.split.images is None:
            raise InputError("InMemoryLoader needs images in memory; WorkerLoader reads files")
        self._images = self.split.images.to(self.device)
        self._labels = self.split.labels.to(self.device)
        self._index = self.split.index.to(self.device)

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the `first`; the same number gives the same batches."""
        order = self._order(number).to(self.device)
        for share in self._shares(first):
            places = order[share.start : share.stop]
            yield Batch(self._images[places], self._labels[places], self._index[places])


@dataclass(eq=False)
class WorkerLoader(Loader):
    """Batches of image files, which worker processes read.

    The transform's random numbers are seeded by seed, epoch and place in the epoch's order, so
    that the number of workers or of processes changes nothing.

    A file that cannot be read in training does not stop the epoch: another image of its batch
    stands in for it (a batch without any is left out), and the end of the epoch raises an error
    that names all such files.

    Args:
        split: the images; `paths` are read.
        batch_size: images of a step, over all processes.
        sampler: order of an epoch; `sequential` to evaluate.
        seed: of the order and the transform.
        device: where the batches go; by way of pinned memory when it is a CUDA device.
        drop_last: leave out a last batch that is not full.
        rank: number of this process.
        world_size: number of processes.
        transform: makes a file a uint8 tensor (3, H, W), or (V, 3, H, W) for several views, with
            torch's global generator for all that is random. It must be picklable.
        workers: reading processes, which live as long as the loader; 0 reads in this process, None
            takes one for each processor, at most 8.
    """

    transform: Transform = field(kw_only=True)
    workers: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Prepares the worker processes; the first epoch starts them."""
        super().__post_init__()
        workers = min(available_cpus(), 8) if self.workers is None else self.workers
        self._requests: list[_Request] = []
        self._loader = DataLoader(
            _Reader(self.split, self.transform, self.seed),
            batch_size=None,  # a request is a batch already
            sampler=self._requests,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.device(self.device).type == "cuda",
            generator=torch.Generator(),  # else it would draw from the global one
            worker_init_fn=_leave_signals,
        )

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the `first`; the same number gives the same batches.

        Raises:
            UnreadableImagesError: after the last batch, when a file could not be read.
        """
        order = self._order(number).tolist()
        self._requests[:] = [
            _Request(number, share, [order[place] for place in share])
            for share in self._shares(first)
        ]
        failures: list[tuple[str, str]] = []
        for parts, failed in self._loader:
            # They come out of the worker's queue as lists.
            failures += [(path, reason) for path, reason in failed]
            if parts is not None:
                yield Batch(*(part.to(self.device, non_blocking=True) for part in parts))
        if failures:
            raise UnreadableImagesError(failures, len(order))


class _Request(NamedTuple):
    epoch: int
    places: range  # in the epoch's order
    images: list[int]  # in the split


# Images, targets and places in the source, if a file could be read; then those that could not.
_Answer = tuple[tuple[Tensor, Tensor, Tensor] | None, list[tuple[str, str]]]


class _Reader(TorchDataset[_Answer]):
    """Reads the files of one request; lives in the worker processes."""

    def __init__(self, split: Split, transform: Transform, seed: int) -> None:
        self._split = split
        self._transform = transform
        self._seed = seed

    def __getitem__(self, request: _Request) -> _Answer:
        read: list[tuple[int, Tensor]] = []
        failures = []
        with torch.random.fork_rng(devices=[]):
            for place, image in zip(request.places, request.images, strict=True):
                path = self._split.paths[image]
                torch.default_generator.manual_seed(mix_seed(self._seed, request.epoch, place))
                try:
                    read.append((image, self._transform(path)))
                except Exception as error:  # broken files make Pillow raise nearly anything
                    failures.append((path, reason_of(error, path)))
        if not read:
            return None, failures
        # All processes must go on with batches of equal size, so the first image stands in.
        read += [read[0]] * len(failures)
        places = torch.tensor([image for image, _ in read])
        views = [view for _, view in read]
        # Views come first: (V, B, 3, H, W).
        images = torch.stack(views, dim=views[0].ndim - 3)
        return (images, self._split.labels[places], self._split.index[places]), failures


def available_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def mix_seed(*numbers: int) -> int:
    """One 63-bit seed out of several numbers, unlike those of their neighbours.

    Example:
        >>> mix_seed(0, 1) == mix_seed(1, 0)
        False
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)

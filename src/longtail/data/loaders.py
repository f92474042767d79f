"""Loaders of batches, from a tensor in memory or from files read by worker processes."""

import atexit
import multiprocessing
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from longtail.data.dataset import Split
from longtail.data.images import UnreadableImagesError, reason_of
from longtail.data.reading import prefetch, prefetch_in_thread, with_new_copy
from longtail.data.remote import UnreachableError
from longtail.data.samplers import Sampling, draw
from longtail.data.seeds import mix_seed
from longtail.errors import InputError

Transform = Callable[[str], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of one step, on the loader's device.

    Args:
        images: (B, 3, H, W) uint8, or (V, B, 3, H, W) when the transform makes several views.
        target: (B,) int64, class index.
        index: (B,) int64, index of each image in its source.
    """

    images: Tensor
    target: Tensor
    index: Tensor


@dataclass(eq=False)
class Loader(ABC):
    """Batches of a split, in an order that depends only on the seed and the epoch.

    No state is kept between epochs, so a resumed run sees the same batches again. Each global batch
    is split into contiguous, equal chunks by rank: concatenated in rank order, the chunks are the
    batch that a single process sees.

    Args:
        split: the images.
        batch_size: global batch size, over all processes.
        sampler: sampling of an epoch; `sequential` for evaluation.
        seed: seed of the order and, if there is one, of the transform.
        device: device of the batches.
        drop_last: drop the last batch if it is incomplete.
        rank: rank of this process.
        world_size: number of processes.

    Raises:
        InputError: when there would be no batch, or processes would take different numbers of
            training steps.
    """

    split: Split
    batch_size: int
    _: KW_ONLY
    sampler: Sampling
    seed: int = 0
    device: torch.device | str = "cpu"
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        """Checks the batch size."""
        if self.batch_size < 1:
            raise InputError(f"batch_size must be 1 or more, got {self.batch_size}")
        if self.drop_last and len(self.split) < self.batch_size:
            raise InputError(
                f"batch_size must be at most the {len(self.split)} images with drop_last, "
                f"got {self.batch_size}"
            )
        uneven = not self.drop_last or self.batch_size % self.world_size != 0
        if self.world_size > 1 and self.sampler != "sequential" and uneven:
            raise InputError(
                "training in several processes needs drop_last and a batch_size that is a multiple "
                f"of {self.world_size}, got {self.drop_last} and {self.batch_size}"
            )

    def __len__(self) -> int:
        """Number of batches in an epoch that have an image for this process."""
        return len(list(self._shares()))

    @abstractmethod
    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Batches of epoch `number` from batch `first`; equal numbers give equal batches."""

    def positions(self) -> Tensor:
        """Positions in the epoch's order of the images of this process."""
        return torch.tensor([position for share in self._shares() for position in share])

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        return draw(self.split.labels, self.sampler, generator)

    def _shares(self, first: int = 0) -> Iterator[range]:
        """Positions in the epoch's order of the images of this process, by batch."""
        images, size = len(self.split), self.batch_size
        end = images - images % size if self.drop_last else images
        for batch in range(first * size, end, size):
            stop = min(batch + size, end)
            # Rounded up: with fewer images than processes, the first processes get them.
            before, after = (
                batch - (batch - stop) * rank // self.world_size
                for rank in (self.rank, self.rank + 1)
            )
            if before < after:
                yield range(before, after)


def _leave_signals(worker: int) -> None:
    """Ignores signals to the process group, so that the training process can save first."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _end(worker: BaseProcess) -> None:
    """Ends a worker at the end of the program.

    An uncaught error keeps the workers alive until then, and the program would wait for them, since
    they ignore the signal that asks them to end.
    """
    if hasattr(signal, "SIGCHLD"):  # PyTorch takes it for a failure of the worker
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    worker.kill()


@dataclass(eq=False)
class InMemoryLoader(Loader):
    """Batches of images that are in one tensor, which is moved to the device once.

    Raises:
        InputError: when the images of the split are not in memory, and as in `Loader`.
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
        """Batches of epoch `number` from batch `first`; equal numbers give equal batches."""
        order = self._order(number).to(self.device)
        for share in self._shares(first):
            indices = order[share.start : share.stop]
            yield Batch(self._images[indices], self._labels[indices], self._index[indices])


@dataclass(eq=False)
class WorkerLoader(Loader):
    """Batches of image files that worker processes read.

    The transform is seeded with seed, epoch and position in the epoch's order, so that the result
    does not depend on the number of workers or processes.

    A file that cannot be read does not stop the epoch: another image of its batch replaces it (a
    batch without a readable image is dropped), and the end of the epoch raises an error that lists
    all such files.

    Args:
        split: the images; `paths` are read.
        batch_size: global batch size, over all processes.
        sampler: sampling of an epoch; `sequential` for evaluation.
        seed: seed of the order and the transform.
        device: device of the batches; through pinned memory for a CUDA device.
        drop_last: drop the last batch if it is incomplete.
        rank: rank of this process.
        world_size: number of processes.
        transform: picklable function from a file to a uint8 tensor (3, H, W), or (V, 3, H, W) for
            several views, that draws from torch's global generator.
        workers: worker processes, which live as long as the loader; 0 reads in this process
            (default: one per processor, at most 8).
    """

    transform: Transform = field(kw_only=True)
    workers: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Prepares the worker processes; the first epoch starts them."""
        super().__post_init__()
        workers = default_workers() if self.workers is None else self.workers
        self._requests: list[_Request] = []
        self._loader = DataLoader(
            _Reader(self.split, self.transform, self.seed),
            batch_size=None,  # a request is already a batch
            sampler=self._requests,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.device(self.device).type == "cuda",
            generator=torch.Generator(),  # otherwise it would draw from the global one
            worker_init_fn=_leave_signals,
        )

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the `first`; the same number gives the same batches.

        Raises:
            UnreadableImagesError: after the last batch, if a file could not be read.
            UnreachableError: at once, if a server does not answer.
        """
        order = self._order(number).tolist()
        shares = list(self._shares(first))
        images = [[order[position] for position in share] for share in shares]
        turn = max(1, self._loader.num_workers)  # a worker gets every such request
        self._requests[:] = [
            _Request(number, share, images[i], images[i + turn] if i + turn < len(images) else [])
            for i, share in enumerate(shares)
        ]
        failures: list[tuple[str, str]] = []
        before = multiprocessing.active_children()
        answers = iter(self._loader)
        for worker in set(multiprocessing.active_children()).difference(before):
            atexit.register(_end, worker)
        for tensors, failed, unreachable in answers:
            if unreachable:
                raise UnreachableError(unreachable)
            # Tuples become lists in the queue of a worker.
            failures += [(path, reason) for path, reason in failed]
            if tensors is not None:
                yield Batch(*(tensor.to(self.device, non_blocking=True) for tensor in tensors))
        if failures:
            raise UnreadableImagesError(failures, len(order))


class _Request(NamedTuple):
    epoch: int
    positions: range  # in the epoch's order
    images: list[int]  # indices into the split
    following: list[int]  # images of the worker's next request


# Images, targets and indices in the source, unless no file could be read; the failures; and what a
# server that does not answer raised, since an exception would not pass the queue unchanged.
_Answer = tuple[tuple[Tensor, Tensor, Tensor] | None, list[tuple[str, str]], str]


class _Reader(TorchDataset[_Answer]):
    """Reads the files of one request in a worker process."""

    def __init__(self, split: Split, transform: Transform, seed: int) -> None:
        self._split = split
        self._transform = transform
        self._seed = seed
        self._download: tuple[list[int], Future[None]] | None = None  # of the next request

    def __getitem__(self, request: _Request) -> _Answer:
        try:
            return self._read(request)
        except UnreachableError as error:
            return None, [], str(error)

    def _read(self, request: _Request) -> _Answer:
        read: list[tuple[int, Tensor]] = []
        failures = []
        self._prefetch(request)
        with torch.random.fork_rng(devices=[]):
            for position, image in zip(request.positions, request.images, strict=True):
                path = self._split.paths[image]
                seed = mix_seed(self._seed, request.epoch, position)
                try:
                    view = with_new_copy(partial(self._view, path, seed), path)
                    read.append((image, view))
                except UnreachableError:
                    raise
                except Exception as error:  # broken files make Pillow raise nearly anything
                    failures.append((path, reason_of(error, path)))
        if not read:
            return None, failures, ""
        # Batches must be of equal size in all processes, so the first image replaces the others.
        read += [read[0]] * len(failures)
        indices = torch.tensor([image for image, _ in read])
        views = [view for _, view in read]
        # (V, B, 3, H, W) for several views.
        images = torch.stack(views, dim=views[0].ndim - 3)
        return (images, self._split.labels[indices], self._split.index[indices]), failures, ""

    def _prefetch(self, request: _Request) -> None:
        """Waits for the downloads of this request, and starts those of the next one."""
        if self._download is not None:
            images, download = self._download
            error = download.exception()
            if error is not None and images == request.images:  # not of an epoch that was left
                raise error
        prefetch(self._split.paths[image] for image in request.images)
        paths = [self._split.paths[image] for image in request.following]
        self._download = request.following, prefetch_in_thread(paths)

    def _view(self, path: str, seed: int) -> Tensor:
        torch.default_generator.manual_seed(seed)
        return self._transform(path)


def default_workers(processes: int = 1) -> int:
    """Number of workers for each of the processes on this machine that read images."""
    return max(1, min(available_cpus(), 8) // processes)


def available_cpus() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # only on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

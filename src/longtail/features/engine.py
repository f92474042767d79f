"""Runs a network on every image of a split once, in order, while threads read the next ones."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from longtail.data import CentreCrop, Split, UnreadableImagesError
from longtail.data.images import Failure, reason_of
from longtail.data.loaders import available_cpus
from longtail.data.reading import prefetch, with_new_copy
from longtail.data.remote import UnreachableError
from longtail.features.cache import FeatureCache, keys_of
from longtail.features.network import Images, Network, Outputs
from longtail.sharing import shared, sharing

LARGEST_BATCH = 256
STORE_EVERY = 1024  # images between writes to the cache

# Indices and reasons of images that could not be read.
_Failures = list[tuple[int, str]]
# Indices of the images that were read; the images, or the network's outputs; failures.
_Work = Future[tuple[list[int], NDArray[Any], _Failures]]


class Chunk(NamedTuple):
    """Outputs for some images of a split.

    Args:
        indices: indices in the split of the images that were read.
        outputs: (len(indices), D).
        failures: index and reason of each image that could not be read.
    """

    indices: list[int]
    outputs: Outputs
    failures: _Failures


def outputs(
    network: Network,
    split: Split,
    crop: CentreCrop,
    *,
    indices: list[int] | None = None,
    threads: int | None = None,
) -> Iterator[Chunk]:
    """Outputs of the images of a split, in order, in constant memory.

    Threads decode the images, since Pillow releases the interpreter's lock. A network that can be
    called by many threads runs in them, each on one processor; any other is called by one thread.
    Several processes share the batches, see `longtail.sharing.shared_by`.

    Args:
        network: see `longtail.features.fastest`.
        split: the images, in memory at the size of the crop or as files.
        crop: how a file is read.
        indices: which images; default: all of them.
        threads: threads of each process; default: torch's number for a CPU, else one per processor.
    """
    chosen = list(range(len(split))) if indices is None else indices
    processes, here = sharing()
    if threads is None:
        threads = torch.get_num_threads() if network.concurrent else available_cpus() // here
    threads = max(1, threads)
    size = max(1, min(LARGEST_BATCH, network.batch_pixels // crop.size**2))
    # Small enough that every thread has work.
    size = max(1, min(size, -(-len(chosen) // (threads * processes))))
    batches = [chosen[begin : begin + size] for begin in range(0, len(chosen), size)]
    return shared(partial(_chunks, network, split, crop, threads), batches)


def _chunks(
    network: Network, split: Split, crop: CentreCrop, threads: int, batches: Sequence[list[int]]
) -> Generator[Chunk, None, None]:
    """Outputs of the images of each batch, in order, by this process."""

    def work(rows: list[int]) -> tuple[list[int], NDArray[Any], _Failures]:
        read, images, failures = _read(split, crop, rows)
        return read, network(images) if network.concurrent and read else images, failures

    def finish(work: _Work) -> Chunk:
        read, values, failures = work.result()
        return Chunk(read, values if network.concurrent or not read else network(values), failures)

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[_Work] = deque()
        try:
            for rows in batches:
                waiting.append(pool.submit(work, rows))
                if len(waiting) > 2 * threads:
                    yield finish(waiting.popleft())
            while waiting:
                yield finish(waiting.popleft())
        finally:  # also if the caller stops early
            for future in waiting:
                future.cancel()


def extract(
    network: Network,
    split: Split,
    crop: CentreCrop,
    *,
    cache: FeatureCache | None = None,
    threads: int | None = None,
    seen: Callable[[int], None] = lambda images: None,
) -> Outputs:
    """Features (N, D) of all images of a split.

    Args:
        network: images to features.
        split: the images.
        crop: how a file is read.
        cache: where features are looked up and stored; the network sees only the other images, so
            that a stopped run resumes.
        threads: as for `outputs`.
        seen: called with the number of images since its last call.

    Raises:
        UnreadableImagesError: after all others are done; it names every image that cannot be read.
    """
    keys = keys_of(split) if cache else []
    rows: dict[int, NDArray[np.float32]] = cache.load(keys) if cache else {}
    seen(len(rows))
    missing = [index for index in range(len(split)) if index not in rows]
    failures: list[Failure] = []
    fresh: dict[bytes, NDArray[np.float32]] = {}
    try:
        for chunk in outputs(network, split, crop, indices=missing, threads=threads):
            rows.update(zip(chunk.indices, chunk.outputs, strict=True))
            failures += [(split.paths[index], reason) for index, reason in chunk.failures]
            seen(len(chunk.indices) + len(chunk.failures))
            if cache:
                fresh |= {keys[index]: rows[index] for index in chunk.indices}
                if len(fresh) >= STORE_EVERY:
                    cache.store(fresh)
                    fresh = {}
    finally:
        if cache and fresh:
            cache.store(fresh)
    if failures:
        raise UnreadableImagesError(failures, len(split))
    return np.stack([rows[index] for index in range(len(split))]).astype(np.float32, copy=False)


def _read(split: Split, crop: CentreCrop, rows: list[int]) -> tuple[list[int], Images, _Failures]:
    """Images (N, 3, H, W) of some rows, which of them could be read, and why others could not."""
    if split.images is not None:
        return rows, split.images.numpy()[rows], []
    read, images, failures = [], [], []
    prefetch(split.paths[index] for index in rows)
    for index in rows:
        path = split.paths[index]
        try:
            images.append(with_new_copy(partial(crop, path), path).numpy())
            read.append(index)
        except UnreachableError:
            raise
        except Exception as error:  # broken files make Pillow raise nearly anything
            failures.append((index, reason_of(error, path)))
    # NumPy, since torch would start its own threads in each of ours.
    return read, np.stack(images) if images else np.empty((0, 3, 0, 0), np.uint8), failures

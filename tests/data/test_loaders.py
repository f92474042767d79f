import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from longtail.data import (
    CentreCrop,
    InMemoryLoader,
    Split,
    UnreadableImagesError,
    WorkerLoader,
)

# Newer Python versions warn of any fork of a process with threads, which torch always has.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*")


def split_of(count: int) -> Split:
    """Image n is filled with the number n; its label is n % 3 and its index 100 + n."""
    numbers = torch.arange(count)
    images = numbers.to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    return Split(numbers % 3, numbers + 100, images, tuple(map(str, range(count))))


@pytest.fixture
def files(tmp_path: Path) -> Split:
    """The same, as files of 12 x 10 pixels."""
    split = split_of(14)
    paths = [str(tmp_path / f"{n}.png") for n in range(14)]
    for n, path in enumerate(paths):
        Image.new("RGB", (12, 10), (n, n, n)).save(path)
    return replace(split, images=None, paths=tuple(paths))


def indices(loader, epoch: int = 0) -> list[list[int]]:
    return [batch.index.tolist() for batch in loader.epoch(epoch)]


def test_batches_hold_image_target_and_index():
    loader = InMemoryLoader(split_of(10), 4, sampler="shuffle")
    batches = list(loader.epoch(0))
    assert [len(batch.target) for batch in batches] == [4, 4, 2]
    assert len(loader) == 3
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape[1:] == (3, 2, 2)
        assert torch.equal(batch.images[:, 0, 0, 0].long() + 100, batch.index)
        assert torch.equal((batch.index - 100) % 3, batch.target)
    assert sorted(i for batch in indices(loader) for i in batch) == list(range(100, 110))


def test_order_follows_seed_and_epoch_alone():
    loader = InMemoryLoader(split_of(40), 8, sampler="shuffle", seed=7)
    again = InMemoryLoader(split_of(40), 8, sampler="shuffle", seed=7)
    third = indices(again, 3)  # without the epochs before
    assert [indices(loader, n) for n in range(4)][3] == third
    assert indices(loader, 3) == third
    assert indices(loader, 2) != third
    assert indices(InMemoryLoader(split_of(40), 8, sampler="shuffle", seed=8), 3) != third


def test_drop_last():
    loader = InMemoryLoader(split_of(10), 4, sampler="shuffle", drop_last=True)
    assert [len(batch) for batch in indices(loader)] == [4, 4]
    assert len(loader) == 2


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [9, 10, 12, 13])
def test_evaluation_over_processes_sees_each_image_once(world_size, count):
    seen, places = [], []
    for rank in range(world_size):
        loader = InMemoryLoader(
            split_of(count), 4, sampler="sequential", rank=rank, world_size=world_size
        )
        mine = indices(loader)
        assert len(mine) == len(loader)
        assert all(mine)
        seen += [i for batch in mine for i in batch]
        places += loader.positions().tolist()
    assert seen == [100 + place for place in places]
    assert sorted(seen) == list(range(100, 100 + count))


@pytest.mark.parametrize(("count", "world_size"), [(4, 3), (49, 8), (3, 3), (100, 7)])
def test_every_process_has_an_image_where_there_are_enough(count, world_size):
    for rank in range(world_size):
        options = {"sampler": "sequential", "rank": rank, "world_size": world_size}
        assert len(indices(InMemoryLoader(split_of(count), 64, **options))) >= 1


@pytest.mark.parametrize("sampler", ["shuffle", "class_balanced"])
def test_training_over_processes_sees_the_same_global_batches(sampler):
    options = {"sampler": sampler, "seed": 1, "drop_last": True}
    whole = indices(InMemoryLoader(split_of(33), 6, **options), 2)
    parts = [
        indices(InMemoryLoader(split_of(33), 6, **options, rank=rank, world_size=3), 2)
        for rank in range(3)
    ]
    assert len(whole) == 5
    for step, batch in enumerate(whole):
        shares = [part[step] for part in parts]
        assert [len(share) for share in shares] == [2, 2, 2]
        assert [i for share in shares for i in share] == batch


def test_an_epoch_goes_on_where_it_was_left(files):
    memory = InMemoryLoader(split_of(14), 4, sampler="shuffle")
    worker = WorkerLoader(files, 4, sampler="shuffle", transform=CentreCrop(2), workers=0)
    for loader in (memory, worker):
        whole = [batch.index.tolist() for batch in loader.epoch(3)]
        assert [batch.index.tolist() for batch in loader.epoch(3, first=2)] == whole[2:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"batch_size": 11, "drop_last": True}, "at most the 10 images .* got 11"),
        ({"batch_size": 4, "world_size": 2}, "needs drop_last .* got False and 4"),
        ({"batch_size": 5, "drop_last": True, "world_size": 2}, "a multiple of 2, got True and 5"),
    ],
)
def test_settings_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        InMemoryLoader(split_of(10), sampler="shuffle", **options)


def test_in_memory_needs_images(files):
    with pytest.raises(ValueError, match="WorkerLoader reads files"):
        InMemoryLoader(files, 4, sampler="shuffle")


def test_workers_give_the_batches_of_memory(files):
    memory = InMemoryLoader(split_of(14), 4, sampler="shuffle", seed=3)
    loader = WorkerLoader(files, 4, sampler="shuffle", seed=3, transform=CentreCrop(2), workers=2)
    assert len(loader) == len(memory)
    for epoch in (0, 5):
        for ours, expected in zip(loader.epoch(epoch), memory.epoch(epoch), strict=True):
            assert torch.equal(ours.images, expected.images)
            assert torch.equal(ours.target, expected.target)
            assert torch.equal(ours.index, expected.index)


def test_a_signal_to_the_group_leaves_the_workers_to_the_training(files):
    loader = WorkerLoader(files, 2, sampler="shuffle", transform=CentreCrop(2), workers=1)
    epoch = loader.epoch(0)
    seen = [next(epoch).index.tolist()]
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    seen += [batch.index.tolist() for batch in epoch]
    assert seen == indices(loader, 0)


def test_an_epoch_left_early_disturbs_nothing(files):
    loader = WorkerLoader(files, 2, sampler="shuffle", transform=CentreCrop(2), workers=1)
    expected = indices(loader, 1)
    next(loader.epoch(0))
    assert indices(loader, 1) == expected


def noise_view(path: str) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 2, 2), dtype=torch.uint8)


def test_random_views_depend_on_neither_workers_nor_processes(files):
    options = {"sampler": "shuffle", "seed": 4, "transform": noise_view, "drop_last": True}
    state = torch.get_rng_state()
    alone = list(WorkerLoader(files, 4, **options, workers=0).epoch(1))
    assert torch.equal(torch.get_rng_state(), state)  # the training's own stream is not touched
    helped = list(WorkerLoader(files, 4, **options, workers=2).epoch(1))
    assert torch.equal(torch.get_rng_state(), state)
    shares = [
        list(WorkerLoader(files, 4, **options, workers=0, rank=r, world_size=2).epoch(1))
        for r in range(2)
    ]
    assert alone[0].images.shape == (2, 4, 3, 2, 2)
    for step, batch in enumerate(alone):
        assert torch.equal(batch.images, helped[step].images)
        for rank in range(2):
            assert torch.equal(batch.images[:, 2 * rank : 2 * rank + 2], shares[rank][step].images)
    every = torch.cat([batch.images.transpose(0, 1).flatten(1) for batch in alone])
    assert len(every.unique(dim=0)) == len(every)  # no two images share their random numbers
    other = list(WorkerLoader(files, 4, **options, workers=0).epoch(2))
    assert not torch.equal(alone[0].images, other[0].images)


def test_a_repeated_image_gets_new_random_numbers(files):
    rare = replace(files, labels=(torch.arange(14) == 0).long())
    loader = WorkerLoader(rare, 14, sampler="class_balanced", transform=noise_view, workers=0)
    (batch,) = loader.epoch(0)
    views = batch.images.transpose(0, 1).flatten(1)[batch.index == 100]
    assert len(views) > 3
    assert len(views.unique(dim=0)) == len(views)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_named_at_the_end_of_the_epoch(files, workers):
    Path(files.paths[3]).write_bytes(b"")
    Path(files.paths[8]).unlink()
    loader = WorkerLoader(files, 4, sampler="sequential", transform=CentreCrop(2), workers=workers)
    batches = []
    # Not `as caught`: its traceback would keep the workers until the garbage collector comes.
    with pytest.raises(UnreadableImagesError, match=r"(?s)2 of 14 images .*/3\.png: .*/8\.png: "):
        batches.extend(loader.epoch(0))
    assert [len(batch.target) for batch in batches] == [4, 4, 4, 2]


def test_another_image_stands_in_for_an_unreadable_one(files):
    Path(files.paths[3]).write_bytes(b"")
    loader = WorkerLoader(files, 4, sampler="sequential", transform=CentreCrop(2), workers=0)
    batch = next(loader.epoch(0))
    assert batch.index.tolist() == [100, 101, 102, 100]
    assert torch.equal(batch.images[:, 0, 0, 0], torch.tensor([0, 1, 2, 0], dtype=torch.uint8))


def test_a_batch_without_a_readable_image_is_left_out(files):
    for path in files.paths[4:8] + files.paths[-1:]:
        Path(path).write_bytes(b"")
    loader = WorkerLoader(files, 4, sampler="sequential", transform=CentreCrop(2), workers=0)
    batches = []
    with pytest.raises(UnreadableImagesError, match="5 of 14"):
        batches.extend(loader.epoch(0))
    assert batches[1].index.tolist() == [108, 109, 110, 111]


def test_a_program_ends_after_an_error_in_the_middle_of_an_epoch(tmp_path, save_image):
    paths = [str(tmp_path / f"{n}.png") for n in range(4)]
    for n, path in enumerate(paths):
        save_image(Path(path), n)
    program = f"""
import torch
from longtail.data import CentreCrop, Split, WorkerLoader
split = Split(torch.zeros(4).long(), torch.arange(4), None, {tuple(paths)})
loader = WorkerLoader(split, 1, transform=CentreCrop(8), sampler="sequential", workers=1)
batches = loader.epoch(0)
next(batches)
raise RuntimeError("own fault")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1] == "RuntimeError: own fault"

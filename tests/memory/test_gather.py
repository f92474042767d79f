"""Two real processes with batches of different sizes end with the same queue."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from longtail import ClassPrior
from longtail.memory import ClassQueue, gather_keys

FEATURES = torch.arange(10.0).reshape(5, 2)
LABELS = torch.tensor([0, 1, 0, 0, 1])
INDEX = torch.arange(5) + 100
PARTS = [slice(0, 2), slice(2, 5)]  # by rank


def new_queue() -> ClassQueue:
    return ClassQueue(ClassPrior([3, 2]), size=4, width=2, base=1)


def process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    queue = new_queue()
    part = PARTS[rank]
    queue.enqueue(*gather_keys(FEATURES[part], LABELS[part], INDEX[part], ragged=True))
    torch.save(queue.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_every_process_ends_with_the_queue_of_one(tmp_path: Path) -> None:
    mp.spawn(process, (str(tmp_path),), nprocs=2)
    alone = new_queue()
    alone.enqueue(FEATURES, LABELS, INDEX)
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt")
        for name, value in alone.state_dict().items():
            assert torch.equal(state[name], value), (rank, name)


def test_without_processes_the_input_comes_back() -> None:
    assert gather_keys(FEATURES)[0] is FEATURES

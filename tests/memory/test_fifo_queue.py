"""The plain queue against a deque."""

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.memory import FifoQueue


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 20), max_size=6))
def test_holds_the_latest(size: int, batches: list[int]) -> None:
    queue, slow, written = FifoQueue(size=size, width=2), deque(maxlen=size), 0
    for batch in batches:
        labels = torch.arange(written, written + batch)
        queue.enqueue(labels[:, None].expand(batch, 2).bfloat16(), labels)
        slow.extend(labels.tolist())
        written += batch
    filled = queue.labels >= 0
    assert sorted(queue.labels[filled].tolist()) == list(slow)
    assert torch.equal(queue.features[filled, 0].long(), queue.labels[filled])
    if written >= size:
        assert queue.labels.roll(-int(queue.pointer)).tolist() == list(slow)


def test_state_dict_round_trip() -> None:
    queue, other = FifoQueue(size=3, width=1), FifoQueue(size=3, width=1)
    queue.enqueue(torch.ones(2, 1), torch.tensor([4, 5]))
    other.load_state_dict(queue.state_dict())
    for q in (queue, other):
        q.enqueue(torch.zeros(2, 1), torch.tensor([6, 7]))
    assert queue.labels.tolist() == other.labels.tolist() == [7, 5, 6]
    assert set(queue.state_dict()) == {"features", "labels", "pointer"}


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"size of FifoQueue .* must be in \[1, \d+\], got 0"):
        FifoQueue(size=0, width=1)
    queue = FifoQueue(size=2, width=3)
    with pytest.raises(ValueError, match=r"\(batch, 3\) and \(batch,\), got \(2, 1\) and \(2,\)"):
        queue.enqueue(torch.zeros(2, 1), torch.zeros(2).long())


@pytest.mark.parametrize("name", ["size", "width"])
def test_sizes_are_whole(name: str) -> None:
    def made(value: float) -> FifoQueue:
        given = {name: value}
        return FifoQueue(**{"size": 64, "width": 2, **given})

    with pytest.raises(
        ValueError, match=rf"{name} of FifoQueue\b.* must be a whole number, got 2.5"
    ):
        made(2.5)
    assert {name: value.shape for name, value in made(4 / 2).named_buffers()} == {
        name: value.shape for name, value in made(2).named_buffers()
    }

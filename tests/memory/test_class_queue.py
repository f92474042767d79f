"""The class-wise queue against a slow one that writes one key at a time."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtail import ClassPrior
from longtail.losses import GMLLoss
from longtail.memory import ClassQueue

quick = settings(max_examples=50, deadline=None, derandomize=True, database=None)
counts_of_classes = st.lists(st.integers(1, 1000), min_size=1, max_size=6)


class SlowQueue:
    """Segments as lists, written one key at a time."""

    def __init__(self, counts: list[int], size: int, base: int) -> None:
        self.ends, total = [], Fraction(0)
        for c, count in enumerate(counts):
            total += Fraction(count, sum(counts))
            end = math.ceil(base * (c + 1) + (size - len(counts) * base) * total)
            self.ends.append(min(end, size))
        self.starts = [0, *self.ends[:-1]]
        self.pointers = [0] * len(counts)
        self.slots: list[tuple[int, int]] = [(-1, -1)] * size

    def write(self, label: int, index: int) -> None:
        length = self.ends[label] - self.starts[label]
        self.slots[self.starts[label] + self.pointers[label]] = (label, index)
        self.pointers[label] = (self.pointers[label] + 1) % length


@quick
@given(
    counts_of_classes,
    st.integers(1, 3),
    st.integers(0, 20),
    st.lists(st.integers(0, 12), max_size=5),
    st.integers(0, 10**6),
)
def test_same_as_writing_one_key_at_a_time(
    counts: list[int], base: int, more: int, batches: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = base * len(counts) + more
    queue = ClassQueue(ClassPrior(counts), size=size, width=2, base=base)
    slow = SlowQueue(counts, size, base)
    written = 0
    for batch in batches:
        labels = torch.randint(len(counts), (batch,), generator=generator)
        index = torch.arange(written, written + batch)
        written += batch
        queue.enqueue(index[:, None].expand(batch, 2).float(), labels, index)
        for label, image in zip(labels.tolist(), index.tolist(), strict=True):
            slow.write(label, image)
    keys = queue.keys()
    assert list(zip(keys.labels.tolist(), keys.index.tolist(), strict=True)) == slow.slots
    filled = keys.labels >= 0
    assert torch.equal(keys.features[filled, 0].long(), keys.index[filled])
    assert keys.features[~filled].count_nonzero() == 0
    assert queue.filled.tolist() == [
        sum(label == c for label, _ in slow.slots) for c in range(len(counts))
    ]
    assert queue.pointers.tolist() == slow.pointers


@quick
@given(counts_of_classes, st.integers(1, 3), st.integers(0, 3000))
def test_segments_tile_the_queue(counts: list[int], base: int, more: int) -> None:
    size = base * len(counts) + more
    queue = ClassQueue(ClassPrior(counts), size=size, width=1, base=base)
    slow = SlowQueue(counts, size, base)
    assert queue.starts.tolist() == slow.starts
    assert (queue.starts + queue.lengths).tolist() == slow.ends
    assert slow.ends[-1] == size
    assert queue.lengths.min() >= 1


def enqueue(queue: ClassQueue, labels: list[int]) -> Tensor:
    values = torch.tensor(labels)
    queue.enqueue(torch.randn(len(labels), 2).bfloat16().requires_grad_(), values, 10 * values)
    return queue.keys().features


def test_state_dict_round_trip() -> None:
    prior = ClassPrior([8, 4, 1])
    queue, other = (ClassQueue(prior, size=8, width=2, base=1) for _ in range(2))
    enqueue(queue, [0, 1, 2, 0, 0])
    other.load_state_dict(queue.state_dict())
    for q in (queue, other):
        torch.manual_seed(0)
        enqueue(q, [1, 2, 0, 0, 1])
    for name, value in queue.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    names = {"features", "labels", "index", "starts", "lengths", "pointers"}
    assert set(queue.state_dict()) == names


def test_takes_16_bits_and_no_gradient() -> None:
    features = enqueue(ClassQueue(ClassPrior([1, 1]), size=4, width=2, base=1), [0, 1])
    assert features.dtype == torch.float32
    assert not features.requires_grad


def test_compiles_without_graph_breaks() -> None:
    torch.compiler.reset()
    prior, labels = ClassPrior([8, 4, 1]), torch.tensor([0, 0, 0, 2, 2, 1, 0, 0, 0])
    features = torch.randn(9, 2)
    queue, other = (ClassQueue(prior, size=8, width=2, base=1) for _ in range(2))
    queue.enqueue(features, labels, torch.arange(9))
    compiled = torch.compile(other.enqueue, fullgraph=True, backend="eager")
    compiled(features, labels, torch.arange(9))
    for name, value in queue.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"base": 0}, r"base of ClassQueue .* must be in \[1, .*, got 0"),
        ({"width": 0}, r"width of ClassQueue must be in \[1, .*, got 0"),
        ({"size": 3}, r"size of ClassQueue .* must be >= num_classes .* = 2 \* 2, got 3"),
    ],
)
def test_bad_settings(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassQueue(ClassPrior([3, 1]), **{"size": 8, "width": 2, "base": 2, **setting})


def test_bad_shapes() -> None:
    queue = ClassQueue(ClassPrior([3, 1]), size=8, width=2, base=2)
    labels = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"got \(4, 3\), \(4,\) and \(4,\)"):
        queue.enqueue(torch.zeros(4, 3), labels, labels)
    with pytest.raises(ValueError, match=r"got \(4, 2\), \(4,\) and \(2,\)"):
        queue.enqueue(torch.zeros(4, 2), labels, labels[:2])


def test_mocos_order_needs_copies() -> None:
    """`enqueue` between a loss and its `backward` changes what the loss was computed from."""
    prior, labels = ClassPrior([3, 1]), torch.tensor([0, 1])
    queue, loss = ClassQueue(prior, size=4, width=2, base=1), GMLLoss(prior)
    key = torch.eye(2)
    queue.enqueue(key, labels, labels)
    query = torch.eye(2).requires_grad_()

    def step(stored: Tensor, stored_labels: Tensor) -> None:
        value = loss(query, stored, stored_labels, query, labels)
        queue.enqueue(key, labels, labels)
        value.backward()

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        step(queue.keys().features, queue.keys().labels)
    keys = queue.keys()
    step(keys.features.clone(), keys.labels.clone())
    assert query.grad is not None


def test_the_last_samples_of_a_class_stay() -> None:
    queue = ClassQueue(ClassPrior([1, 1]), size=4, width=1, base=1)
    labels = torch.zeros(5, dtype=torch.int32)  # into the two slots of class 0
    queue.enqueue(torch.arange(5.0)[:, None], labels, torch.arange(5))
    assert sorted(queue.keys().index[:2].tolist()) == [3, 4]


@pytest.mark.parametrize("name", ["size", "width", "base"])
def test_sizes_are_whole(name: str) -> None:
    def made(value: float) -> ClassQueue:
        given = {name: value}
        return ClassQueue(ClassPrior([6, 2]), **{"size": 64, "width": 2, "base": 1, **given})

    with pytest.raises(
        ValueError, match=rf"{name} of ClassQueue\b.* must be a whole number, got 2.5"
    ):
        made(2.5)
    assert {name: value.shape for name, value in made(4 / 2).named_buffers()} == {
        name: value.shape for name, value in made(2).named_buffers()
    }

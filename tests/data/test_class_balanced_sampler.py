from itertools import islice

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, TensorDataset

from longtail.data import ClassBalancedSampler

LABELS = np.repeat([0, 1, 2], [80, 17, 6])


def drawn(ranks: int, rank: int, epoch: int = 0, **settings) -> list[int]:
    sampler = ClassBalancedSampler(LABELS, ranks, rank, **settings)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_classes_are_drawn_equally_often_without_early_repeats():
    times = np.bincount(drawn(1, 0), minlength=103)
    for c in range(3):
        of_class = times[c == LABELS]
        assert 20 < of_class.sum() < 50
        assert of_class.max() - of_class.min() <= 1


def test_power_one_draws_as_the_data_are():
    counts = np.bincount(LABELS[np.concatenate([drawn(1, 0, e, power=1.0) for e in range(20)])])
    np.testing.assert_allclose(counts / counts.sum(), [0.777, 0.165, 0.058], atol=0.04)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_each_draw_goes_to_one_process(ranks):
    whole = drawn(1, 0)
    parts = [drawn(ranks, rank) for rank in range(ranks)]
    assert {len(part) for part in parts} == {103 // ranks}
    assert [index for step in zip(*parts, strict=True) for index in step] == whole[
        : 103 // ranks * ranks
    ]


def test_every_pass_is_another_epoch_and_the_seed_decides():
    sampler = ClassBalancedSampler(torch.tensor(LABELS))
    first, second = list(sampler), list(sampler)
    assert first != second
    assert second == drawn(1, 0, epoch=1)
    assert first != drawn(1, 0, seed=1)


@pytest.mark.parametrize("ranks", [1, 2])
def test_it_resumes_in_the_middle_of_an_epoch(ranks):
    sampler = ClassBalancedSampler(LABELS, 2, 0)
    passes = iter(sampler)
    for _ in range(15):
        next(passes)
    state = sampler.state_dict()
    resumed = [ClassBalancedSampler(LABELS, ranks, rank) for rank in range(ranks)]
    for each in resumed:
        each.load_state_dict(state)
    assert len(resumed[0]) == 73 // ranks
    rest = [index for step in zip(*resumed, strict=True) for index in step]
    assert rest == drawn(1, 0)[30 : 30 + len(rest)]
    assert len(rest) == 73 // ranks * ranks
    assert list(resumed[0]) == drawn(ranks, 0, epoch=1)


def test_a_loader_that_draws_ahead_says_what_it_consumed():
    data = TensorDataset(torch.arange(103))
    sampler = ClassBalancedSampler(LABELS)
    loader = iter(DataLoader(data, batch_size=10, sampler=sampler, num_workers=1))
    for _ in range(3):
        next(loader)
    assert sampler.state_dict()["taken"] > 30
    resumed = ClassBalancedSampler(LABELS)
    resumed.load_state_dict(sampler.state_dict(consumed=30))
    rest = torch.cat([batch for (batch,) in DataLoader(data, batch_size=10, sampler=resumed)])
    assert rest.tolist() == drawn(1, 0)[30:]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_consumed_counts_up_to_the_last_batch(workers):
    """The last batches are trained on when the sampler has already drawn the whole epoch."""
    data = TensorDataset(torch.arange(103))
    sampler = ClassBalancedSampler(LABELS)
    consumed = 0
    for (batch,) in DataLoader(data, batch_size=10, sampler=sampler, num_workers=workers):
        consumed += len(batch)
        resumed = ClassBalancedSampler(LABELS)
        resumed.load_state_dict(sampler.state_dict(consumed=consumed))
        assert list(resumed) == (drawn(1, 0)[consumed:] or drawn(1, 0, epoch=1))
    assert list(sampler) == drawn(1, 0, epoch=1)


def test_a_pass_after_one_that_was_left_early_is_another_epoch():
    sampler = ClassBalancedSampler(LABELS)
    passes = [list(islice(sampler, 20)) for _ in range(3)]
    assert passes == [drawn(1, 0, epoch)[:20] for epoch in range(3)]
    sampler.set_epoch(1)
    assert list(sampler) == drawn(1, 0, epoch=1)
    assert list(sampler) == drawn(1, 0, epoch=2)
    list(islice(sampler, 20))
    sampler.load_state_dict(sampler.state_dict())
    assert list(sampler) == drawn(1, 0, epoch=3)[20:]


def test_setting_the_epoch_of_a_loaded_state_keeps_its_position():
    """Trainers set the epoch before each pass; Accelerate twice, when told where to continue."""
    state = {"epoch": 4, "taken": 30, "seed": 0, "samples": 103}
    sampler = ClassBalancedSampler(LABELS)
    sampler.load_state_dict(state)
    sampler.set_epoch(4)
    sampler.set_epoch(4)
    assert list(sampler) == drawn(1, 0, epoch=4)[30:]
    sampler.set_epoch(4)  # a pass has begun since
    assert list(sampler) == drawn(1, 0, epoch=4)
    sampler.load_state_dict(state)
    sampler.set_epoch(3)
    assert list(sampler) == drawn(1, 0, epoch=3)


def test_accelerate_continues_in_the_middle_of_an_epoch():
    data = TensorDataset(torch.arange(103))
    sampler = ClassBalancedSampler(LABELS, num_replicas=1, rank=0)
    sampler.load_state_dict({"epoch": 4, "taken": 30, "seed": 0, "samples": 103})
    loader = prepare_data_loader(DataLoader(data, batch_size=10, sampler=sampler))
    loader.set_epoch(sampler.epoch)
    passes = [torch.cat([batch for (batch,) in loader]).tolist() for _ in range(2)]
    assert passes == [drawn(1, 0, epoch=4)[30:], drawn(1, 0, epoch=5)]


def test_a_rest_that_is_too_short_for_the_processes_is_left(monkeypatch):
    """They may start after the state has been loaded."""
    sampler = ClassBalancedSampler(LABELS)
    sampler.load_state_dict({"epoch": 4, "taken": 102, "seed": 0, "samples": 103})
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert len(sampler) == 51
    assert list(sampler) == drawn(2, 1, epoch=5)


def test_processes_are_counted_when_they_are_needed(monkeypatch):
    sampler = ClassBalancedSampler(LABELS)
    assert len(sampler) == 103
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 104)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    with pytest.raises(ValueError, match="must be at least num_replicas 104, got 103"):
        len(sampler)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert len(sampler) == 51
    assert list(sampler) == drawn(2, 1)
    assert sampler.state_dict(consumed=10)["taken"] == 20


def test_a_state_at_the_end_of_an_epoch_starts_the_next():
    sampler = ClassBalancedSampler(LABELS)
    passes = iter(sampler)
    for _ in range(103):
        next(passes)
    resumed = ClassBalancedSampler(LABELS)
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed) == drawn(1, 0, epoch=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 2, "num_replicas": 2}, r"rank must be in \[0, num_replicas 2\), got 2"),
        ({"power": 2.0}, r"power must be in \[0, 1\], got 2.0"),
        ({"labels": [0]}, "at least num_replicas 2, got 1"),
        ({"labels": [0, -1]}, "must be 0 or more, got -1"),
        ({"labels": [0, 0.5]}, "whole class indices, got 0.5"),
        ({"labels": np.eye(3)[LABELS]}, r"non-empty vector, got shape \(103, 3\)"),
        ({"labels": []}, r"non-empty vector, got shape \(0,\)"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassBalancedSampler(**{"labels": LABELS, "num_replicas": 2, "rank": 0, **arguments})


@pytest.mark.parametrize("change", [{"seed": 1}, {"samples": 9}])
def test_a_state_of_another_run(change):
    sampler = ClassBalancedSampler(LABELS)
    with pytest.raises(ValueError, match=f"{next(iter(change))} of the state must be"):
        sampler.load_state_dict({**sampler.state_dict(), **change})

"""When a step is recorded, and when it must not be; every method's is in test_contract.py."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, dropout

import longtail
from longtail import ClassPrior
from longtail.losses import CrossEntropyLoss
from longtail.methods import Method
from longtail.methods.plain import PlainClassifier
from longtail.models import create_backbone
from longtail.training import loop
from longtail.training.graphed import GraphedGradients
from longtail.training.input import TrainingBatch

PRIOR = ClassPrior([20, 8, 4])
TrainSteps, AssertSame = Callable[..., Any], Callable[..., None]


class Killed(Exception):
    """In place of the signal that ends a process."""


class Example(PlainClassifier):
    """Cross-entropy after dropout, with a number that subclasses change."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(PRIOR, create_backbone("smallnet"), loss=CrossEntropyLoss(PRIOR))
        self.number = 1.0

    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        logits = dropout(self.model(views[0]), 0.2)
        return {"loss": self.number * cross_entropy(logits, target)}


class ChangesInForward(Example):
    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        self.number += 0.1
        return super().forward(views, target, index)


class ChangesAfterEachStep(Example):
    def after_step(self) -> None:
        self.number += 0.1


class ReplacesATensorAfterEachStep(Example):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(()), persistent=False)
        self.all = [self.average]  # else a new tensor may have the address of an old one

    def after_step(self) -> None:
        self.average = 0.9 * self.average + 0.1
        self.all.append(self.average)


class DrawsOnTheHost(Example):
    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        weight = random.random()
        return {"loss": weight * super().forward(views, target, index)["loss"]}


class ChangesWithTheProgress(Example):
    def set_progress(self, fraction: float) -> None:
        self.number = 1.0 + fraction


class SelectsByData(Example):
    static = False

    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        kept = target > 0
        return super().forward(views[:, kept], target[kept], index[kept])


def batches(method: Method, sizes: list[int]) -> Iterator[TrainingBatch]:
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        shape = (method.num_views, size, 3, 8, 8)
        views = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        target = torch.randint(3, (size,), generator=generator)
        target[0] = 1
        yield TrainingBatch(views, target, torch.arange(size))


def both(make: type[Method], train_steps: TrainSteps, epochs: list[list[int]]) -> Iterator[Any]:
    for recorded in (False, True):
        random.seed(0)
        method = make()
        given = [list(batches(method, sizes)) for sizes in epochs]
        yield train_steps(method, given, recorded=recorded)


@pytest.mark.parametrize(
    ("make", "replays", "reason"),
    [
        (ChangesInForward, 0, "changes its state, or draws random numbers, in Python"),
        (ChangesAfterEachStep, 1, "its state in Python changes in every step"),
        (ReplacesATensorAfterEachStep, 1, "its state in Python changes in every step"),
        (DrawsOnTheHost, 0, "changes its state, or draws random numbers, in Python"),
    ],
)
def test_what_a_replay_would_not_repeat_is_not_recorded(
    make: type[Method],
    replays: int,
    reason: str,
    train_steps: TrainSteps,
    assert_same: AssertSame,
) -> None:
    trained = both(make, train_steps, [[6] * 8])
    computed = next(trained)
    with pytest.warns(UserWarning, match=f"{make.__name__} are not recorded .*{reason}"):
        recorded = next(trained)
    assert_same(computed, recorded)
    assert recorded.gradients.recorder.replays == replays


def test_a_recorded_step_of_sharpness_aware_minimisation(
    train_steps: TrainSteps, assert_same: AssertSame
) -> None:
    computed, recorded = (
        train_steps(given, [list(batches(given, [6] * 9))], recorded=how, sam=0.05)
        for how, given in ((False, Example()), (True, Example()))
    )
    assert_same(computed, recorded)
    assert recorded.gradients.recorder.recordings == 1
    plain = Example()
    plain_steps = train_steps(plain, [list(batches(plain, [6] * 9))], recorded=False)
    assert plain_steps.losses[-1]["loss"] != computed.losses[-1]["loss"]


@pytest.mark.parametrize(
    ("make", "recordings", "replays"),
    [(Example, 1, 7), (ChangesWithTheProgress, 2, 7), (SelectsByData, 0, 0)],
)
def test_recorded_again_only_where_the_state_changed(
    make: type[Method],
    recordings: int,
    replays: int,
    train_steps: TrainSteps,
    assert_same: AssertSame,
) -> None:
    computed, recorded = both(make, train_steps, [[6] * 5, [6] * 5])
    assert_same(computed, recorded)
    recorder = recorded.gradients.recorder
    assert (recorder.recordings, recorder.replays) == (recordings, replays)


def test_a_batch_of_another_size_is_computed(
    train_steps: TrainSteps, assert_same: AssertSame
) -> None:
    computed, recorded = both(Example, train_steps, [[6, 6, 6, 6, 4, 6, 5, 6]])
    assert_same(computed, recorded)
    assert recorded.gradients.recorder.replays == 3


def test_in_bf16(train_steps: TrainSteps, assert_same: AssertSame) -> None:
    trained = []
    for recorded in (False, True):
        method = Example()
        given = [list(batches(method, [6] * 6))]
        trained.append(train_steps(method, given, recorded=recorded, precision="bf16-mixed"))
    assert_same(*trained)


def test_a_recording_that_fails_costs_one_warning(
    train_steps: TrainSteps,
    assert_same: AssertSame,
    cpu_recorder: type[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: object, function: Callable[[], None]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cpu_recorder, "record", fail)
    trained = both(Example, train_steps, [[6] * 8])
    computed = next(trained)
    with pytest.warns(UserWarning, match="stream is capturing$") as warned:
        recorded = next(trained)
    assert len(warned) == 1
    assert_same(computed, recorded)


def test_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_recorder: type[Any]
) -> None:
    """With an average and a resumption; classes are weighted in the last epoch."""
    settings: dict[str, Any] = {"epochs": 5, "ema": 0.9, "batch_size": 64, "verbose": False}
    computed = longtail.train("digits-lt", "ldam", out=tmp_path / "computed", **settings)
    recorders = []

    class Recorded(GraphedGradients):
        def __call__(self, fabric: Any, model: Any, *others: Any) -> dict[str, Tensor]:
            self.recorder.method = model.module
            return super().__call__(fabric, model, *others)

    def recorded(fabric: object, loader: object) -> GraphedGradients:
        recorders.append(cpu_recorder(torch.nn.Module()))
        return Recorded(recorders[-1])

    monkeypatch.setattr(loop, "gradients_of", recorded)
    train_step, steps = loop.train_step, 0

    def killed(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 14:  # in the third epoch of six steps
            raise Killed
        return train_step(*args)

    monkeypatch.setattr(loop, "train_step", killed)
    out = tmp_path / "recorded"
    with pytest.raises(Killed):
        longtail.train("digits-lt", "ldam", out=out, **settings)
    again = longtail.train("digits-lt", "ldam", out=out, resume=True, **settings)
    ours, theirs = (run.model().state_dict() for run in (again, computed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [recorder.recordings for recorder in recorders] == [1, 2]

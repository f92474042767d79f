"""Lightning: state in checkpoints, the prior beside it, and adjusted predictions."""

import json
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from longtail import ClassPrior, losses, memory
from longtail.data import DataConfig, Split, load
from longtail.integrations.lightning import PriorCallback, read_record
from longtail.integrations.record import PriorRecord
from longtail.metrics import classification_metrics

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: few workers, no logger
PRIOR = ClassPrior([60, 12, 4])
RECORD = PriorRecord(PRIOR, "uniform", ("a", "b", "c"))


def data(seed: int = 0, counts: torch.Tensor = PRIOR.counts) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(counts)
    x = torch.randn(len(labels), 5, generator=generator) + 2 * torch.nn.functional.one_hot(
        labels, 5
    )
    return TensorDataset(x, labels, torch.arange(len(labels)))


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = torch.nn.Linear(5, 3)
        self.loss = losses.LogitAdjustedLoss(PRIOR)
        self.queue = memory.ClassQueue(PRIOR, size=12, width=5, base=2)
        self.record = RECORD

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        x, y, index = batch
        self.queue.enqueue(x, y, index)
        loss: torch.Tensor = self.loss(self.network(x), y)
        return loss

    def predict_step(self, batch: Any) -> torch.Tensor:
        return self.record.adjust(self.network(batch[0]), [0.8, 0.1, 0.1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(folder: Path, epochs: int, *callbacks: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder, max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu",
        logger=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Module, Path]:
    module, file = Module(), tmp_path / "last.ckpt"
    trainer = make_trainer(tmp_path, 2, PriorCallback(RECORD))
    trainer.fit(module, DataLoader(data(), batch_size=16))
    trainer.save_checkpoint(file)
    return module, file


def test_loss_and_queue_are_in_the_checkpoint(trained: tuple[Module, Path]) -> None:
    module, file = trained
    state = torch.load(file, weights_only=True)["state_dict"]
    assert {"loss.log_prior", *(f"queue.{name}" for name in module.queue.state_dict())} <= set(
        state
    )
    assert read_record(file) == RECORD


def test_the_same_losses_as_a_plain_loop(trained: tuple[Module, Path]) -> None:
    module, plain = trained[0], Module()
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(2):
        for number, batch in enumerate(DataLoader(data(), batch_size=16)):
            optimiser.zero_grad()
            plain.training_step(batch, number).backward()
            optimiser.step()
    torch.testing.assert_close(plain.network.weight, module.network.weight, rtol=1e-6, atol=1e-6)


def test_the_tail_of_digits_is_found_more_often_than_with_plain_cross_entropy(
    tmp_path: Path,
) -> None:
    digits = load(DataConfig("digits-lt", imbalance=100))

    def tensors(split: Split) -> TensorDataset:
        return TensorDataset(split.images[:, 0].flatten(1) / 255, split.labels)

    class Pixels(Module):
        def __init__(self, loss: torch.nn.Module) -> None:
            super().__init__()
            self.network, self.loss = torch.nn.Linear(64, 10), loss

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            loss: torch.Tensor = self.loss(self.network(batch[0]), batch[1])
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    few, (x, labels) = [], tensors(digits.test).tensors
    for loss in (torch.nn.CrossEntropyLoss(), losses.LogitAdjustedLoss(digits.prior)):
        module = Pixels(loss)
        make_trainer(tmp_path, 10).fit(module, DataLoader(tensors(digits.train), batch_size=64))
        few.append(classification_metrics(module.network(x), labels, digits.prior)["few"])
    assert few[1] > few[0] + 0.05


def test_predictions_express_the_target_prior(trained: tuple[Module, Path], tmp_path: Path) -> None:
    module = trained[0]
    (first, *_) = make_trainer(tmp_path, 1).predict(module, DataLoader(data(), batch_size=16))
    raw = module.network(data().tensors[0][:16]).detach()
    target = torch.tensor([0.8, 0.1, 0.1]).log() - torch.full((3,), 1 / 3).log()
    torch.testing.assert_close(first, raw + target)


def test_a_checkpoint_of_other_classes_is_refused(
    trained: tuple[Module, Path], tmp_path: Path
) -> None:
    other = PriorRecord(PRIOR, "uniform", ("a", "b", "d"))
    with pytest.raises(ValueError, match="'d'"):
        make_trainer(tmp_path, 3, PriorCallback(other)).fit(
            Module(), DataLoader(data(), batch_size=16), ckpt_path=trained[1]
        )


def test_a_deferred_loss_is_told_the_progress(tmp_path: Path) -> None:
    loss = losses.LDAMLoss(PRIOR, deferred=0.5)
    seen: list[bool] = []

    class Watched(Module):
        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            seen.append(loss.class_weight() is not None)
            return super().training_step(batch, number)

    loader = DataLoader(data(), batch_size=76)
    make_trainer(tmp_path, 4, PriorCallback(RECORD, loss)).fit(Watched(), loader)
    assert seen == [False, False, True, True]


def told(
    folder: Path, loss: losses.ClassificationLoss, given: Any = None, **lengths: Any
) -> list[float]:
    """The progress that a loss is told, in epochs of five steps."""
    seen: list[float] = []
    loss.set_progress = seen.append  # type: ignore[method-assign]
    trainer = pl.Trainer(
        default_root_dir=folder, callbacks=[PriorCallback(RECORD, loss)], accelerator="cpu",
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, **lengths,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(given or data(), batch_size=16))
    return seen


@pytest.mark.parametrize(
    ("lengths", "progress"),
    [
        ({"max_steps": 15}, [n / 15 for n in range(15)]),
        ({"max_epochs": -1, "max_steps": 10}, [n / 10 for n in range(10)]),
        ({"max_epochs": 4, "max_steps": 10}, [n / 10 for n in range(10)]),
        ({"max_epochs": 2, "max_steps": 100}, [n / 10 for n in range(10)]),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, [n / 10 for n in range(10)]),
        ({"max_steps": 4, "accumulate_grad_batches": 2}, [0, 0, 0.25, 0.25, 0.5, 0.75, 0.75]),
        ({"max_epochs": 1, "limit_train_batches": 2}, [0, 0.5]),
    ],
)
def test_progress_within_epochs(
    lengths: dict[str, int], progress: list[float], tmp_path: Path
) -> None:
    assert told(tmp_path, losses.LDAMLoss(PRIOR), **lengths) == pytest.approx(progress)


def test_progress_of_epochs_of_unknown_length(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(data())

    seen = told(tmp_path, losses.LDAMLoss(PRIOR), Stream(), max_epochs=2)
    assert seen == [0.0] * 5 + [0.5] * 5


def test_deferred_weights_in_an_epoch_that_is_resumed(tmp_path: Path) -> None:
    loader, file = DataLoader(data(), batch_size=16), tmp_path / "step.ckpt"

    class Saved(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 7:  # of 10
                trainer.save_checkpoint(file)

    make_trainer(tmp_path, 2, PriorCallback(RECORD), Saved()).fit(Module(), loader)
    loss, seen = losses.LDAMLoss(PRIOR, deferred=0.5), []

    class Watched(Module):
        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            seen.append(loss.weighting)
            return super().training_step(batch, number)

    again = make_trainer(tmp_path, 2, PriorCallback(RECORD, loss))
    again.fit(Watched(), loader, ckpt_path=file)
    assert seen == [True] * 3


def test_training_of_unknown_length_warns_if_the_loss_changes(tmp_path: Path) -> None:
    length = {"max_epochs": -1, "max_time": {"seconds": 1}, "limit_train_batches": 1}
    with pytest.warns(UserWarning, match="LDAMLoss .* not told the progress") as warned:
        assert not told(tmp_path, losses.LDAMLoss(PRIOR), **length)
    assert sum("not told the progress" in str(w.message) for w in warned) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not told the progress")
        told(tmp_path, losses.CrossEntropyLoss(PRIOR), **length)


def test_a_record_names_every_class() -> None:
    with pytest.raises(ValueError, match=r"3 names, got 2"):
        PriorRecord(PRIOR, "uniform", ("a", "b"))


def test_a_record_names_every_class_differently() -> None:
    for names in (("a", "a", "z"), (1, "1", 2)):
        with pytest.raises(ValueError, match=r"class_names must differ, got '[a1]' more than once"):
            PriorRecord(PRIOR, "uniform", names)  # type: ignore[arg-type]
    stored = {"longtail": RECORD.to_dict() | {"class_names": ["a", "b", "b"]}}
    with pytest.raises(ValueError, match="b"):
        PriorRecord.from_dict(stored, "the checkpoint")


@pytest.mark.parametrize(
    ("names", "stored"),
    [
        (np.array(["a", "b", "c"]), ("a", "b", "c")),
        ((0, 1, 2), ("0", "1", "2")),
        (np.array([0, 1, 2]), ("0", "1", "2")),
        ((), ("0", "1", "2")),
    ],
)
@pytest.mark.parametrize("expresses", ["source", [0.5, 0.25, 0.25], np.array([0.5, 0.25, 0.25])])
def test_a_record_is_read_back(names: Any, stored: Any, expresses: Any) -> None:
    record = PriorRecord(PRIOR, expresses, names)
    assert record.class_names == stored
    written = json.loads(json.dumps({"longtail": record.to_dict()}))
    assert PriorRecord.from_dict(written, "the checkpoint") == record


@pytest.mark.parametrize("expresses", ["unifrom", [0.5, 0.5], [0.5, 0.4, 0.4]])
def test_a_record_of_an_invalid_prior(expresses: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        PriorRecord(PRIOR, expresses)

"""Every loss, and GML with a queue, in a plain loop, Lightning and the Hugging Face Trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, IterableDataset

from longtail import ClassPrior, losses, memory
from longtail.integrations.huggingface import trainer_loss

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainers: few workers, no logger
PRIOR = ClassPrior([60, 12, 4])
STEPS, BATCH, WIDTH = 3, 8, 4
LOSSES = {
    name: value
    for name, value in vars(losses).items()
    if name in losses.__all__ and isinstance(value, type) and value is not losses.ClassificationLoss
}


class Rows(IterableDataset[dict[str, Tensor]]):
    """Twenty-four rows in the same order for all three."""

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(0)
        for row in range(STEPS * BATCH):
            label = row % 3
            x = torch.randn(2, 5, generator=generator)  # two views
            x[:, label] += 2
            yield {"x": x, "labels": torch.tensor(label), "index": torch.tensor(row)}


class Learner(nn.Module):
    """A network with a head, and a loss of whatever it makes: {"loss", "logits"}."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.prototypes = nn.Parameter(torch.randn(3, WIDTH))
        cls = LOSSES[name]
        settings: dict[str, Any] = {"width": WIDTH} if cls is losses.ProCoLoss else {}
        takes_prior = cls not in WITHOUT_PRIOR
        self.loss = cls(PRIOR, **settings) if takes_prior else cls(**settings)
        self.queue = memory.ClassQueue(PRIOR, size=12, width=WIDTH, base=2)
        if cls is losses.ProCoLoss:
            self.loss.next_epoch()

    def forward(self, x: Tensor, index: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        query, key = (normalize(self.encoder(view), dim=1) for view in x.unbind(1))
        logits = self.head(query)
        if labels is None:  # the Trainer has them, and computes the loss from the logits
            return {"logits": logits}
        compute = SPECIAL.get(type(self.loss), lambda *_: self.loss(logits, labels))
        return {"loss": compute(self, query, key, logits, labels, index), "logits": logits}


def gml(self: Any, query: Tensor, key: Tensor, logits: Tensor, y: Tensor, index: Tensor) -> Tensor:
    self.queue.enqueue(key, y, index)
    keys = self.queue.keys()
    indices = {"query_index": index, "key_index": keys.index}
    loss: Tensor = self.loss(query, keys.features, keys.labels, logits / 30, y, **indices)
    return loss


def proco(self: Any, query: Tensor, key: Tensor, _: Tensor, y: Tensor, index: Tensor) -> Tensor:
    self.loss.update(query.detach(), y)
    loss: Tensor = self.loss(query, y)
    return loss


SPECIAL: dict[type, Callable[..., Tensor]] = {
    losses.GMLLoss: gml,
    losses.ProCoLoss: proco,
    losses.BalancedContrastiveLoss: lambda self, query, key, _, y, index: self.loss(
        torch.stack([query, key], dim=1), normalize(self.prototypes, dim=1), y
    ),
    losses.SupervisedContrastiveLoss: lambda self, query, key, _, y, index: self.loss(
        torch.stack([query, key], dim=1), y
    ),
    losses.PaCoLoss: lambda self, query, key, logits, y, index: self.loss(
        torch.cat([query, key]), torch.cat([y, y]), logits
    ),
    losses.DistillationLoss: lambda self, query, key, logits, y, index: self.loss(
        logits, self.head(key).detach()
    ),
}
WITHOUT_PRIOR = (
    losses.BalancedContrastiveLoss,
    losses.SupervisedContrastiveLoss,
    losses.DistillationLoss,
)


def optimiser(learner: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(learner.parameters(), lr=0.1)


def plain(name: str, _: Path) -> Learner:
    learner = Learner(name)
    steps = optimiser(learner)
    for batch in DataLoader(Rows(), batch_size=BATCH):
        loss = learner(**batch)["loss"]
        steps.zero_grad()
        loss.backward()
        steps.step()
    return learner


class Module(pl.LightningModule):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.learner = Learner(name)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss: Tensor = self.learner(**batch)["loss"]
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimiser(self.learner)


def lightning(name: str, folder: Path) -> Learner:
    module = Module(name)
    pl.Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, DataLoader(Rows(), batch_size=BATCH))  # fmt: skip
    return module.learner


def hugging_face(name: str, folder: Path) -> Learner:
    learner = Learner(name)
    steps = optimiser(learner)
    given = isinstance(learner.loss, losses.ClassificationLoss)
    transformers.Trainer(
        model=learner,
        args=transformers.TrainingArguments(
            output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=BATCH,
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=0,
            max_grad_norm=0.0, remove_unused_columns=False,
        ),
        train_dataset=Rows(),
        compute_loss_func=trainer_loss(learner.loss) if given else None,
        optimizers=(steps, torch.optim.lr_scheduler.ConstantLR(steps, factor=1.0)),
    ).train()  # fmt: skip
    return learner


@pytest.mark.parametrize("name", LOSSES)
def test_the_same_weights_and_state_in_all_three(name: str, tmp_path: Path) -> None:
    expected, before = plain(name, tmp_path).state_dict(), Learner(name).state_dict()
    assert not torch.equal(expected["encoder.weight"], before["encoder.weight"])
    for train in (lightning, hugging_face):
        found = train(name, tmp_path).state_dict()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

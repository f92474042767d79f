# order: 10
# %% [markdown]
# # Lightning
#
# A loss of longtail is an attribute of the `LightningModule`; a callback stores the prior in every
# checkpoint; `record.adjust` predicts under any prior.

# %%
import logging
from pathlib import Path

import lightning.pytorch as pl
import torch
from matplotlib import pyplot as plt
from torch.utils.data import DataLoader, TensorDataset

import longtail
from longtail.integrations.lightning import PriorCallback, read_record
from longtail.integrations.record import PriorRecord
from longtail.metrics import per_class_recall

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
data = longtail.data.load(longtail.data.DataConfig("digits-lt", imbalance=100))


def tensors(split):
    return TensorDataset(split.images[:, 0].flatten(1) / 255, split.labels)


class Classifier(pl.LightningModule):
    def __init__(self, loss, record):
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )
        self.loss, self.record = loss, record

    def training_step(self, batch):
        return self.loss(self.network(batch[0]), batch[1])

    def predict_step(self, batch):
        return self.record.adjust(self.network(batch[0]), "uniform")

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


# %%
recall = {}
for loss in (
    torch.nn.CrossEntropyLoss(),
    longtail.losses.LogitAdjustedLoss(data.prior),
):
    pl.seed_everything(0, verbose=False)
    # What the logits express is stated as uniform for both, so that nothing is adjusted here.
    record = PriorRecord(data.prior, "uniform", data.class_names)
    trainer = pl.Trainer(
        max_epochs=20,
        callbacks=[PriorCallback(record)],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir="runs",
    )
    trainer.fit(
        Classifier(loss, record), DataLoader(tensors(data.train), 64, shuffle=True)
    )
    logits = torch.cat(
        trainer.predict(trainer.model, DataLoader(tensors(data.test), 400))
    )
    name = type(loss).__name__
    recall[name] = per_class_recall(logits, data.test.labels)
    print(f"{name}: balanced accuracy {recall[name].mean():.3f}")

# %% [markdown]
# The prior is in the checkpoint:

# %%
print(read_record(max(Path("runs").rglob("*.ckpt"))).prior.counts.tolist())
for name, values in recall.items():
    plt.plot(values, marker="o", label=name)
plt.xticks(
    range(10), [f"{c}\n{n}" for c, n in enumerate(data.prior.counts.tolist())]
)
plt.xlabel("digit, and number of training images")
plt.ylabel("recall")
plt.legend()

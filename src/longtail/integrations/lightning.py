"""Lightning: a callback that stores the class prior in checkpoints.

A loss or a queue of longtail is an `nn.Module`: assign it to an attribute of the `LightningModule`,
and its state is in `state_dict` and on the right device. Adjust logits in `predict_step`:

    def predict_step(self, batch):
        return self.record.adjust(self(batch), "uniform")
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from longtail.errors import InputError
from longtail.integrations.record import KEY, PriorRecord
from longtail.losses import ClassificationLoss


class PriorCallback(Callback):
    """Stores class names, counts and the expressed prior in every checkpoint.

    Args:
        record: class prior, expressed prior and class names.
        loss: the loss, if it changes during training (LDAM-DRW); it is told the progress at every
            epoch.
    """

    def __init__(self, record: PriorRecord, loss: ClassificationLoss | None = None) -> None:
        self.record, self.loss = record, loss

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Tells the loss how much of training is done."""
        if self.loss is not None and trainer.max_epochs and trainer.max_epochs > 0:
            self.loss.set_progress(trainer.current_epoch / trainer.max_epochs)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Adds the record to the checkpoint."""
        checkpoint[KEY] = self.record.to_dict()

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Rejects a checkpoint with other classes.

        Raises:
            InputError: if the checkpoint was written for other class names.
        """
        stored = PriorRecord.from_dict(checkpoint, "the checkpoint")
        if stored.class_names != self.record.class_names:
            raise InputError(
                f"the checkpoint must have the classes {list(self.record.class_names)}, "
                f"got {list(stored.class_names)}"
            )


def read_record(checkpoint: str | Path) -> PriorRecord:
    """Reads the record of a Lightning checkpoint that was written with `PriorCallback`.

    Args:
        checkpoint: the file; only tensors and plain values are loaded, no code.

    Raises:
        InputError: if it has no record, or contains anything but tensors and plain values.
    """
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{checkpoint} must contain only tensors and plain values") from error
    return PriorRecord.from_dict(stored, str(checkpoint))

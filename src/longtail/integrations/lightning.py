"""Lightning: a callback that stores the class prior in checkpoints.

A loss or a queue of longtail is an `nn.Module`: assign it to an attribute of the `LightningModule`,
and its state is in `state_dict` and on the right device. Adjust logits in `predict_step`:

    def predict_step(self, batch):
        return self.record.adjust(self(batch), "uniform")
"""

import pickle
import warnings
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
        loss: the loss, if it changes during training (LDAM-DRW); it is told the progress before
            every batch: batches over those of `max_epochs` or steps over `max_steps`, whichever is
            further.
    """

    def __init__(self, record: PriorRecord, loss: ClassificationLoss | None = None) -> None:
        self.record, self.loss = record, loss

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Warns if the loss changes during training, but the length of training is unknown."""
        if self.loss is None or _progress(trainer, 0):
            return
        if type(self.loss).set_progress is not ClassificationLoss.set_progress:
            warnings.warn(
                f"{type(self.loss).__name__} changes during training, but is not told the "
                "progress: the Trainer needs max_epochs or max_steps",
                stacklevel=2,
            )

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tells the loss how much of training is done, also in an epoch that is resumed."""
        if self.loss is not None and (fractions := _progress(trainer, batch_idx)):
            self.loss.set_progress(min(max(fractions), 1.0))

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


def _progress(trainer: Any, batch: int) -> list[float]:
    """Fractions of the epochs and of the steps that are done, of each that has a maximum.

    An epoch of unknown length counts once it is over: its number of batches is infinite.
    """
    done = (
        (trainer.current_epoch + batch / max(trainer.num_training_batches, 1), trainer.max_epochs),
        (trainer.global_step, trainer.max_steps),
    )
    return [count / most for count, most in done if most is not None and most > 0]


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

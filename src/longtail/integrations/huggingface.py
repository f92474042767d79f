"""Hugging Face Trainer, pipelines and `datasets`, for text and images.

loss = LogitAdjustedLoss(class_prior(train_set))
trainer = Trainer(
    model=model,
    args=args,
    train_dataset=train_set,
    compute_loss_func=trainer_loss(loss),
    compute_metrics=group_metrics(prior),
    callbacks=[PriorCallback(PriorRecord(prior, loss.expresses, names), loss)],
)
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from longtail.errors import InputError
from longtail.integrations.record import KEY, PriorRecord
from longtail.losses import ClassificationLoss
from longtail.losses.base import check_loss
from longtail.metrics import classification_metrics
from longtail.prior import ClassPrior
from longtail.shift.priors import Prior
from longtail.targets import IGNORE_INDEX


def class_prior(dataset: Any, column: str = "label") -> ClassPrior:
    """Class prior of a `datasets.Dataset`.

    Args:
        dataset: a data set with a column of class indices.
        column: name of that column. Its feature decides the number of classes if it is a
            `ClassLabel`, else the largest label does.

    Raises:
        InputError: if there is no such column, a label is not a class index, or a class has no
            sample.
    """
    if column not in dataset.column_names:
        raise InputError(f"column must be one of {dataset.column_names}, got {column!r}")
    classes = getattr(dataset.features[column], "num_classes", None)
    return ClassPrior.from_labels(dataset[column][:], classes)


def trainer_loss(loss: ClassificationLoss) -> Callable[..., Tensor]:
    """A classification loss as `compute_loss_func` of `transformers.Trainer`.

    With gradient accumulation the Trainer passes the number of samples of all accumulated batches,
    N, and expects contributions of the batches that add up to the mean, which this function
    returns. For a loss that weights the classes, the mean over all N is over the sum of their
    weights, which a single batch does not determine: a batch of fewer than N contributes its sum of
    weighted nats over N times the mean weight under the training prior, so a class keeps its weight
    however small the batches are. A batch of all N has its own sum of weights, as in a plain loop.

    Args:
        loss: any `ClassificationLoss`; it is moved to the device of the logits.

    Raises:
        InputError: for any other loss.
    """
    check_loss("trainer_loss", loss)

    def compute_loss(
        outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
        mean: Tensor = loss.to(logits.device)(logits, labels)
        if num_items_in_batch is None:
            return mean
        counts = labels.ne(IGNORE_INDEX)
        share = counts.sum() / num_items_in_batch
        weight = loss.class_weight()
        if weight is not None:
            total = torch.where(counts, weight[labels.where(counts, 0)], 0.0).sum()
            expected = num_items_in_batch * (loss.log_prior.exp().to(weight) @ weight)
            share = torch.where(share == 1, share, total / expected)
        return mean * share.to(mean.dtype)

    return compute_loss


def group_metrics(prior: ClassPrior) -> Callable[[Any], dict[str, float]]:
    """`longtail.metrics.classification_metrics` as `compute_metrics` of `transformers.Trainer`.

    Args:
        prior: class prior of the training set, which defines the many, medium and few groups.
    """

    def compute_metrics(evaluated: Any) -> dict[str, float]:
        logits, labels = evaluated.predictions, evaluated.label_ids
        logits = logits[0] if isinstance(logits, tuple) else logits
        return classification_metrics(torch.as_tensor(logits), torch.as_tensor(labels), prior)

    return compute_metrics


class PriorCallback(TrainerCallback):
    """Stores class names and the expressed prior in the model's configuration.

    `save_pretrained` and `push_to_hub` then carry them, and `AdjustedPipeline` reads them.

    Args:
        record: class prior, expressed prior and class names.
        loss: the loss, if it changes during training (LDAM-DRW); it is told the progress before
            every step.
    """

    def __init__(self, record: PriorRecord, loss: ClassificationLoss | None = None) -> None:
        self.record, self.loss = record, loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes the record into `model.config`."""
        config = kwargs["model"].config
        setattr(config, KEY, self.record.to_dict())
        config.id2label = dict(enumerate(self.record.class_names))
        config.label2id = {name: c for c, name in enumerate(self.record.class_names)}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tells the loss how much of training is done."""
        if self.loss is not None:
            self.loss.set_progress(min(state.global_step / max(state.max_steps, 1), 1.0))


class AdjustedPipeline:
    """A text or image classification pipeline that predicts under another class prior.

    Args:
        pipeline: pipeline of a model that was trained with `PriorCallback`.
        target_prior: `uniform`, `source`, a file of probabilities per class, or (C,) probabilities.

    Raises:
        InputError: if the model's configuration has no prior.
    """

    def __init__(self, pipeline: Any, target_prior: Prior | str = "uniform") -> None:
        self.pipeline, self.target_prior = pipeline, target_prior
        config = pipeline.model.config
        self.record = PriorRecord.from_dict(
            vars(config), f"the configuration of {config._name_or_path!r}"
        )

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Label and probability of every class, most probable first, in the form of the pipeline.

        Args:
            inputs: input of the pipeline, or a list.
            **options: options of the pipeline, such as `batch_size`.
        """
        classes = self.record.prior.num_classes
        found = self.pipeline(inputs, top_k=classes, function_to_apply="none", **options)
        one = bool(found) and isinstance(found[0], Mapping)
        rows = [
            {each["label"]: each["score"] for each in row} for row in ([found] if one else found)
        ]
        logits = [[row[name] for name in self.record.class_names] for row in rows]
        adjusted = self.record.adjust(torch.tensor(logits).reshape(-1, classes), self.target_prior)
        ranked = [self._ranked(p) for p in adjusted.softmax(dim=1)]
        return ranked[0] if one else ranked

    def _ranked(self, p: Tensor) -> list[dict[str, Any]]:
        order = p.argsort(descending=True).tolist()
        return [{"label": self.record.class_names[c], "score": float(p[c])} for c in order]

"""A run whose training has not ended: its data, and predictions of its last checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from longtail.data import CentreCrop, DataConfig, Dataset, load
from longtail.data.load import is_own_source
from longtail.errors import InputError
from longtail.models import ImageClassifier
from longtail.names import refuse_untrusted
from longtail.prior import ClassPrior
from longtail.training.distributed import best_device
from longtail.training.inference import split_logits
from longtail.training.predictions import Predictions
from longtail.training.run import Run, RunFolder
from longtail.training.split_record import check_split

AnyData = TypeVar("AnyData")


def data_settings(run: RunFolder, kind: Callable[..., AnyData]) -> AnyData:
    """The settings of the data of a run.

    Args:
        run: the run; its settings file may come from anyone.
        kind: class of the settings.

    Raises:
        InputError: when the file has no valid ones, or names code that the user does not trust.
    """
    file = run.folder / "config.yaml"
    try:
        config = kind(**run.config["data"])
        source = str(config.source)  # type: ignore[attr-defined]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} has no valid settings of data: {error}") from error
    if is_own_source(source):
        refuse_untrusted(file, {source: "source"}, run.trust)
    return config


def predicted_now(run: Run) -> Predictions:
    """Predictions of a run's last checkpoint for the split that the run will be evaluated on.

    Args:
        run: from `RunFolder.latest`; its data are loaded again.

    Raises:
        InputError: when the data cannot be loaded, have changed, or have no split to evaluate on.
    """
    card, config = run.model_card(), data_settings(run, DataConfig)
    dataset = load(config)
    check_split(run.folder, dataset, use="evaluated")
    name = dataset.evaluated
    if name is None:
        raise InputError(f"the data of {run.folder} have no test or val split to evaluate on")
    return predict_split(run.model(), card, dataset, name, config.workers)


def predict_split(
    model: ImageClassifier,
    card: Mapping[str, Any],
    dataset: Dataset,
    name: str,
    threads: int | None = None,
) -> Predictions:
    """Predictions of a model for a split, by one process.

    Args:
        model: the model.
        card: its card.
        dataset: the data.
        name: name of the split.
        threads: threads that read images; see `longtail.features.outputs`.
    """
    split, crop = dataset.splits[name], CentreCrop(card["image_size"], card["margin"])
    device = torch.device(best_device())
    return Predictions(
        logits=split_logits(model.backbone, model.head, split, crop, device, threads),
        labels=split.labels,
        index=split.index,
        paths=split.paths,
        class_names=dataset.class_names,
        prior=ClassPrior(card["class_counts"]),
        expressed=card["expresses"],
        name=dataset.name,
        split=name,
    )

"""Predictions of a run whose training has not ended: of its last checkpoint."""

from pathlib import Path

import torch

from longtail.data import CentreCrop, DataConfig, load
from longtail.errors import InputError
from longtail.names import is_import_path, refuse_untrusted
from longtail.prior import ClassPrior
from longtail.training.distributed import best_device
from longtail.training.inference import split_logits
from longtail.training.predictions import Predictions
from longtail.training.run import Run


def predicted_now(run: Run) -> Predictions:
    """What the model of a run's last checkpoint gives for the split that the run will end with.

    Args:
        run: from `RunFolder.latest`; its data are loaded again.

    Raises:
        InputError: when the data cannot be loaded, have changed, or have no split to evaluate on.
    """
    card, file = run.model_card(), run.folder / "config.yaml"
    settings = run.config.get("data")
    try:
        config = DataConfig(**settings)  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(f"{file} has no valid settings of data: {error}") from error
    if is_import_path(config.source) and not Path(config.source).exists():
        refuse_untrusted(file, {config.source: "source"}, run.trust)
    dataset = load(config)
    run.check_classes(dataset.class_names, "run")
    name = "test" if dataset.test is not None else "val"
    if name not in dataset.splits:
        raise InputError(f"the data of {run.folder} have no test or val split to evaluate on")
    model, split = run.model(), dataset.splits[name]
    crop = CentreCrop(card["image_size"], card["margin"])
    device = torch.device(best_device())
    return Predictions(
        logits=split_logits(model.backbone, model.head, split, crop, device, config.workers),
        labels=split.labels,
        index=split.index,
        paths=split.paths,
        class_names=dataset.class_names,
        prior=ClassPrior(card["class_counts"]),
        expressed=card["expresses"],
        name=dataset.name,
        split=name,
    )

"""Judging a segmentation run, again and under any target prior, and samples for its report."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from longtail.data.segmentation import (
    PairReader,
    PixelDataConfig,
    PixelDataset,
    PixelSplit,
    load_pixels,
    mask_picture,
    save_png,
)
from longtail.errors import InputError
from longtail.metrics import segmentation_metrics
from longtail.models import Segmenter
from longtail.prior import ClassPrior
from longtail.shift import resolve_prior
from longtail.training.processes import best_device
from longtail.training.segmentation.input import evaluation_pairs
from longtail.training.segmentation.predict import (
    classes_of,
    confusion_of,
    dense_logits,
    target_of,
)
from longtail.training.segmentation.run import PixelRun

SAMPLES = 6


def judge_pixels(
    run: PixelRun,
    target_prior: str | None = None,
    *,
    split: str | None = None,
    window: Sequence[int] | None = None,
    flip: bool | None = None,
) -> dict[str, float]:
    """Figures of a run; its model sees the images again unless nothing is asked to be different.

    Args:
        run: a finished run.
        target_prior: `uniform`, `source` or a file of probabilities; the run's own when not given.
        split: `train`, `val` or `test`; the one that was judged at its end when not given.
        window: height and width of sliding windows; as in the run's settings when not given.
        flip: average with the mirrored image; as in the run's settings when not given.

    Returns: see `longtail.metrics.segmentation_metrics`.
    Raises:
        ValueError: when there is no such split, or the data are no longer what they were.
    """
    if target_prior is None and split is None and window is None and flip is None:
        return segmentation_metrics(run.confusion(), run.prior)
    config = run.config
    dataset = load_pixels(PixelDataConfig(**config["data"]))
    if dataset.class_names != tuple(run.model_card()["class_names"]):
        raise InputError(f"the data of {run.folder} have other classes now: {dataset.class_names}")
    part = split or dataset.judged
    if part not in dataset.splits:
        raise InputError(f"split must be one of {sorted(dataset.splits)}, got {part!r}")
    device = torch.device(best_device())
    (matrix,) = confusion_of(
        run.model().to(device),
        evaluation_pairs(dataset, dataset.splits[part], device, config["data"]["workers"]),
        resolve_prior(run.model_card()["expresses"], run.prior, dataset.num_classes),
        [target_of(config["prior_power"], target_prior, run.prior, dataset.class_names)],
        window=config["window"] if window is None else window,
        flip=config["flip_test"] if flip is None else flip,
    )
    return segmentation_metrics(matrix, run.prior)


def sample_places(split: PixelSplit, prior: ClassPrior) -> list[int]:
    """Images to show: for each of the rarest classes the one that has most of it.

    The choice does not look at predictions. An image that two classes choose is shown once.
    """
    rarest = prior.counts.argsort(stable=True)[:SAMPLES].tolist()
    found = [int(split.pixels[:, c].argmax()) for c in rarest if split.pixels[:, c].any()]
    return list(dict.fromkeys(found))


@torch.no_grad()
def save_samples(
    run: PixelRun,
    model: Segmenter,
    dataset: PixelDataset,
    split: PixelSplit,
    expressed: Tensor,
    target: Tensor | None,
) -> None:
    """Writes image, truth and prediction of a few images into `samples/` of the run folder."""
    device = next(model.parameters()).device
    reader = PairReader(split.mask_of, dataset.coding, dataset.image_size)
    window, flip = run.config["window"], run.config["flip_test"]
    for number, place in enumerate(sample_places(split, dataset.prior)):
        pair = reader(split.paths[place]).to(device)
        logits = dense_logits(model, pair[None, :3], window=window, flip=flip)
        pictures = {
            "image": Image.fromarray(pair[:3].permute(1, 2, 0).cpu().numpy()),
            "truth": mask_picture(pair[3], dataset.num_classes),
            "prediction": mask_picture(
                classes_of(logits, expressed, target)[0], dataset.num_classes
            ),
        }
        for name, picture in pictures.items():
            save_png(picture, run.folder / "samples" / f"{number}-{name}.png")

"""Evaluation of a segmentation run under any target prior, and samples for its report."""

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from longtail.data import UnreadableImagesError
from longtail.data.images import Failure
from longtail.data.loaders import default_workers
from longtail.errors import InputError
from longtail.prior import ClassPrior
from longtail.segmentation.dataset import PixelDataset, PixelSplit, load_pixels
from longtail.segmentation.input import evaluation_pairs
from longtail.segmentation.layouts import PixelDataConfig
from longtail.segmentation.masks import mask_picture, save_png
from longtail.segmentation.metrics import segmentation_metrics
from longtail.segmentation.model import Segmenter
from longtail.segmentation.pairs import PairReader
from longtail.segmentation.predict import classes_of, confusion_of, dense_logits, target_of
from longtail.segmentation.run import PixelRun
from longtail.sharing import shared, sharing
from longtail.shift import expressed_prior
from longtail.training import RunFolder
from longtail.training.distributed import best_device
from longtail.training.partial import data_settings
from longtail.training.split_record import check_split

SAMPLES = 6


def evaluate_pixels(
    run: PixelRun,
    target_prior: str | None = None,
    *,
    split: str | None = None,
    window: Sequence[int] | None = None,
    flip: bool | None = None,
) -> dict[str, float]:
    """Metrics of a run; if any argument is given, its model predicts the images again.

    Args:
        run: a run that has ended, or a view of it as of its last checkpoint.
        target_prior: `uniform`, `source` or a file of probabilities; default: the run's own.
        split: `train`, `val` or `test`; default: the one that the run was evaluated on.
        window: height and width of sliding windows; default: that of the run's settings.
        flip: average with the mirrored image; default: that of the run's settings.

    Returns: see `segmentation_metrics`.
    Raises:
        InputError: when there is no such split, or the data have changed.
    """
    as_it_was = target_prior is None and split is None and window is None and flip is None
    if as_it_was and run.finished:
        return segmentation_metrics(run.confusion(), run.prior)
    config = run.config
    dataset = load_pixels(data := data_settings(run, PixelDataConfig))
    if not run.finished:
        check_split(run.folder, dataset, use="evaluated")
    if dataset.class_names != tuple(run.model_card()["class_names"]):
        raise InputError(
            f"the classes of the data differ from those of {run.folder}, got {dataset.class_names}"
        )
    split = split or dataset.evaluated
    if split not in dataset.splits:
        raise InputError(f"split must be one of {sorted(dataset.splits)}, got {split!r}")
    seen = dataset.splits[split]
    processes, here = sharing()
    workers = default_workers(here) if data.workers is None else data.workers
    work = partial(
        _confusion_of_shares,
        run,
        seen,
        dataset.reader(seen),
        workers,
        target_of(config.get("prior_power"), target_prior, run.prior, dataset.class_names),
        window=config.get("window") if window is None else window,
        flip=config.get("flip_test", False) if flip is None else flip,
    )
    shares = [(rank, processes) for rank in range(processes)]
    matrices, unread = zip(*shared(work, shares), strict=True)
    if failures := [failure for share in unread for failure in share]:
        raise UnreadableImagesError(failures, len(seen))
    return segmentation_metrics(torch.stack(matrices).sum(0), run.prior)


def _confusion_of_shares(
    run: PixelRun,
    seen: PixelSplit,
    reader: PairReader,
    workers: int,
    target: Tensor | None,
    shares: Sequence[tuple[int, int]],
    **options: Any,
) -> Generator[tuple[Tensor, list[Failure]], None, None]:
    """Confusion matrix (C, C) of each share of a split, and what cannot be read of it.

    Args:
        run: the run.
        seen: the split.
        reader: of its image files.
        workers: processes that read images.
        target: the prior to predict for.
        shares: rank and number of processes of each share.
        **options: see `confusion_of`.
    """
    device = torch.device(best_device())
    model = run.model().to(device)
    expressed = expressed_prior(run.model_card()["expresses"], run.prior)
    for rank, world_size in shares:
        pairs = evaluation_pairs(seen, reader, device, workers, rank=rank, world_size=world_size)
        try:
            yield confusion_of(model, pairs, expressed, [target], **options)[0], []
        except UnreadableImagesError as error:
            yield torch.empty(0), error.failures


def sample_indices(split: PixelSplit, prior: ClassPrior) -> list[int]:
    """Indices of images to show: for each of the rarest classes, the image with most of its pixels.

    The choice does not depend on predictions. An image chosen for two classes is listed once.
    """
    rarest = prior.counts.argsort(stable=True)[:SAMPLES].tolist()
    found = [int(split.pixels[:, c].argmax()) for c in rarest if split.pixels[:, c].any()]
    return list(dict.fromkeys(found))


@torch.no_grad()
def save_samples(
    run: RunFolder,
    model: Segmenter,
    dataset: PixelDataset,
    split: PixelSplit,
    expressed: Tensor,
    target: Tensor | None,
) -> None:
    """Writes image, truth and prediction of a few images into `samples/` of the run folder."""
    device = next(model.parameters()).device
    reader = dataset.reader(split)
    window, flip = run.config["window"], run.config["flip_test"]
    for number, index in enumerate(sample_indices(split, dataset.prior)):
        pair = reader(split.paths[index]).to(device)
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

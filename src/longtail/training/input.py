"""Loaders and views of a run: images in memory or from files, behind one interface."""

import torch

from longtail.augment import View, named_view
from longtail.data import (
    CentreCrop,
    Dataset,
    InMemoryLoader,
    Loader,
    RandomCrops,
    Split,
    WorkerLoader,
)
from longtail.training.config import Config

EVALUATION_BATCH = 256


def training_input(
    dataset: Dataset, config: Config, num_views: int, device: torch.device
) -> tuple[Loader, list[View]]:
    """The loader of the training images, and what makes each view of its batches.

    Images in memory are cropped with the rest of a view, on the device. Large ones are cropped by
    the processes that decode them, once a view; only the rest is left to do.
    """
    views = [named_view(name, dataset.image_size) for name in config.views]
    views = views * num_views if len(views) == 1 else views
    split, size = dataset.train, config.batch_size
    if split.images is not None:
        return InMemoryLoader(
            split, size, sampler=config.sampling, seed=config.seed, device=device, drop_last=True
        ), views
    loader = WorkerLoader(
        split,
        size,
        transform=RandomCrops(dataset.image_size, num_views),
        sampler=config.sampling,
        seed=config.seed,
        device=device,
        drop_last=True,
        workers=config.data.workers,
    )
    return loader, [view.without_crop() for view in views]


def evaluation_loader(
    split: Split, crop: CentreCrop, device: torch.device, workers: int | None = None
) -> Loader:
    """The loader of images to predict, each once, in order."""
    if split.images is not None:
        return InMemoryLoader(split, EVALUATION_BATCH, sampler="sequential", device=device)
    return WorkerLoader(
        split,
        EVALUATION_BATCH,
        transform=crop,
        sampler="sequential",
        device=device,
        workers=workers,
    )


def evaluation_crop(dataset: Dataset) -> CentreCrop:
    """How an image file is cropped for a model of this data: small ones are used to the edge."""
    if dataset.train.images is not None:
        return CentreCrop(dataset.image_size, margin=1.0)
    return CentreCrop(dataset.image_size)

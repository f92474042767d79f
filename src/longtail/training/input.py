"""Loaders and views of a run: images in memory or from files, behind one interface."""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:  # it takes seconds to import, and only a training needs it
    from lightning_fabric import Fabric

EVALUATION_BATCH = 256  # images of each process


def training_input(
    dataset: Dataset, config: Config, num_views: int, fabric: "Fabric"
) -> tuple[Loader, list[View]]:
    """The loader of this process's training images, and what makes each view of its batches.

    Images in memory are cropped with the rest of a view, on the device. Large ones are cropped by
    the processes that decode them, once a view as it says (the middle where it has no resized
    crop); only the rest is left to do.
    """
    views = [named_view(name, dataset.image_size) for name in config.views]
    views = views * num_views if len(views) == 1 else views
    split, size = dataset.train, config.batch_size
    shared: dict[str, Any] = {
        "sampler": config.sampling,
        "seed": config.seed,
        "device": fabric.device,
        "drop_last": True,
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
    }
    if split.images is not None:
        return InMemoryLoader(split, size, **shared), views
    crops, rest = zip(*(view.apart() for view in views), strict=True)
    transform: CentreCrop | RandomCrops = CentreCrop(dataset.image_size)
    if any(crops):
        scales = tuple(crop and crop.scale for crop in crops)
        transform = RandomCrops(dataset.image_size, scales)
    loader = WorkerLoader(split, size, transform=transform, workers=config.data.workers, **shared)
    return loader, list(rest)


def evaluation_loader(
    split: Split,
    crop: CentreCrop,
    device: torch.device,
    workers: int | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """The loader of this process's share of the images to predict, each once, in order."""
    size = EVALUATION_BATCH * world_size
    shared: dict[str, Any] = {
        "sampler": "sequential",
        "device": device,
        "rank": rank,
        "world_size": world_size,
    }
    if split.images is not None:
        return InMemoryLoader(split, size, **shared)
    return WorkerLoader(split, size, transform=crop, workers=workers, **shared)


def evaluation_crop(dataset: Dataset) -> CentreCrop:
    """How an image file is cropped for a model of this data: small ones are used to the edge."""
    if dataset.train.images is not None:
        return CentreCrop(dataset.image_size, margin=1.0)
    return CentreCrop(dataset.image_size)

"""Loaders of images with their masks, in memory or from files, for training and evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from longtail.augment import Drawn
from longtail.data import Batch, InMemoryLoader, Loader, WorkerLoader
from longtail.segmentation.config import PixelConfig
from longtail.segmentation.dataset import PixelDataset, PixelSplit
from longtail.segmentation.pairs import PairReader, RandomPairCrops
from longtail.segmentation.views import PairedView, named_paired_view
from longtail.training.input import TrainingBatch, TrainingLoader, share_of

if TYPE_CHECKING:  # it takes seconds to import, and only a training needs it
    from lightning_fabric import Fabric

EVALUATION_BATCH = 8  # images of each process


@dataclass(frozen=True)
class MakePairedView:
    """Makes the view of a batch of images with their masks.

    Args:
        view: the view of every image-mask pair (4, H, W).
    """

    view: PairedView

    def __call__(self, shape: torch.Size, generator: torch.Generator) -> Drawn[TrainingBatch]:
        """Draws the view: one for all images, with the masks as target (B, h, w)."""
        view = self.view.draw(shape, generator)

        def apply(batch: Batch, drawn: Iterator[Tensor]) -> TrainingBatch:
            seen = view.apply(batch.images, drawn)
            return TrainingBatch(seen[None, :, :3], seen[:, 3].long(), batch.index)

        return Drawn(view.parameters, apply)


def training_pairs(dataset: PixelDataset, config: PixelConfig, fabric: "Fabric") -> TrainingLoader:
    """The loader of this process's training batches; image files are cropped as they are read."""
    split, size = dataset.train, config.batch_size
    crop = (config.crop[0], config.crop[1]) if config.crop else None
    view = named_paired_view(config.views[0], crop)
    given: dict[str, Any] = {
        "sampler": config.sampling,
        "seed": config.seed,
        "drop_last": True,
        **share_of(fabric),
    }
    images: Loader
    if split.images is not None:
        images = InMemoryLoader(split, size, **given)
    else:
        assert crop is not None  # checked when the settings were resolved
        crops = RandomPairCrops(dataset.reader(split), crop, view.scale)
        images = WorkerLoader(split, size, transform=crops, workers=config.data.workers, **given)
        view = view.without_crop()
    return TrainingLoader(images, MakePairedView(view), stream=())


def evaluation_pairs(
    split: PixelSplit,
    reader: PairReader,
    device: torch.device,
    workers: int | None,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """The loader of this process's share of whole pairs (B, 4, H, W), each once, in order.

    Image files are read one by one by the reader, since they may differ in size.
    """
    given: dict[str, Any] = {
        "sampler": "sequential",
        "device": device,
        "rank": rank,
        "world_size": world_size,
    }
    if split.images is not None:
        return InMemoryLoader(split, EVALUATION_BATCH * world_size, **given)
    return WorkerLoader(split, world_size, transform=reader, workers=workers, **given)

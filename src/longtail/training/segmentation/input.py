"""Loaders of pairs: in memory or from files, for training and for evaluation."""

from collections.abc import Iterator

import torch

from longtail.augment import PairedView, View, named_paired_view
from longtail.data import Batch, InMemoryLoader, Loader, WorkerLoader
from longtail.data.loaders import mix_seed
from longtail.data.segmentation import PairReader, PixelDataset, PixelSplit, RandomPairCrops
from longtail.training.segmentation.config import PixelConfig

EVALUATION_BATCH = 8
AS_THEY_ARE = [View(())]  # of the loop: the pairs were seen by the loader already


class PairedLoader:
    """Batches of another loader, seen by a paired view: images (1, B, 3, h, w), target (B, h, w).

    The images of a step and their classes must be drawn together, so it is done here and not by
    the loop, which knows of images alone. All randomness of a step follows from seed and number.

    Args:
        pairs: gives batches of pairs (B, 4, H, W).
        view: of every pair.
    """

    def __init__(self, pairs: Loader, view: PairedView) -> None:
        self.pairs, self.view = pairs, view

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.pairs)

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the `first`; the same number gives the same batches."""
        generator = torch.Generator()
        for step, batch in enumerate(self.pairs.epoch(number, first), first):
            generator.manual_seed(mix_seed(self.pairs.seed, number, step, self.pairs.rank))
            seen = self.view(batch.images, generator)
            yield Batch(seen[None, :, :3], seen[:, 3].long(), batch.index)


def training_pairs(
    dataset: PixelDataset, config: PixelConfig, device: torch.device
) -> PairedLoader:
    """The loader of the training pairs; those read from files need a crop."""
    split, size = dataset.train, config.batch_size
    crop = (config.crop[0], config.crop[1]) if config.crop else None
    view = named_paired_view(config.views[0], crop)
    if split.images is not None:
        memory = InMemoryLoader(
            split, size, sampler=config.sampling, seed=config.seed, device=device, drop_last=True
        )
        return PairedLoader(memory, view)
    assert crop is not None  # `settle` asks for one
    files = WorkerLoader(
        split,
        size,
        transform=RandomPairCrops(
            split.mask_of, dataset.coding, dataset.image_size, crop, view.scale
        ),
        sampler=config.sampling,
        seed=config.seed,
        device=device,
        drop_last=True,
        workers=config.data.workers,
    )
    return PairedLoader(files, view.without_crop())


def evaluation_pairs(
    dataset: PixelDataset, split: PixelSplit, device: torch.device, workers: int | None
) -> Loader:
    """The loader of whole pairs (B, 4, H, W), each once, in order; one by one from files."""
    if split.images is not None:
        return InMemoryLoader(split, EVALUATION_BATCH, sampler="sequential", device=device)
    reader = PairReader(split.mask_of, dataset.coding, dataset.image_size)
    return WorkerLoader(
        split, 1, transform=reader, sampler="sequential", device=device, workers=workers
    )

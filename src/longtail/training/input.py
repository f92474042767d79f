"""Training and evaluation batches, from images in memory or in files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from longtail.augment import CutMix, Drawn, Mixup, View, draw_views, named_view
from longtail.augment.batched import send
from longtail.data import (
    Batch,
    CentreCrop,
    Dataset,
    InMemoryLoader,
    Loader,
    RandomCrops,
    Split,
    WorkerLoader,
)
from longtail.data.seeds import mix_seed
from longtail.methods import MixPartner
from longtail.training.config import Config

if TYPE_CHECKING:  # it takes seconds to import, and only training needs it
    from lightning_fabric import Fabric

EVALUATION_BATCH = 256  # images of each process
STEPS_AHEAD = 20  # whose views are drawn at once: some megabytes of memory
MIXES: dict[str, type[Mixup | CutMix]] = {"mixup": Mixup, "cutmix": CutMix}


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Batch of one training step, as taken by `Method.forward`.

    Args:
        views: (V, B, 3, H, W) uint8, V views of the images.
        target: (B, ...) int64, class index of each image or pixel.
        index: (B,) int64, index of each image in its source.
        partner: what the first view is mixed with, or None.
    """

    views: Tensor
    target: Tensor
    index: Tensor
    partner: MixPartner | None = None

    def arguments(self) -> tuple[Any, ...]:
        """Arguments of `Method.forward`."""
        fixed = (self.views, self.target, self.index)
        return fixed if self.partner is None else (*fixed, self.partner)


# From the shape of the images; `apply` takes the `Batch`.
MakeBatch = Callable[[torch.Size, torch.Generator], Drawn[TrainingBatch]]
Ahead = list[tuple[Drawn[TrainingBatch], Iterator[Tensor]]]


class TrainingLoader:
    """Batches of a loader with their random views.

    The views of a step are seeded by the run's seed, epoch, step and rank, so that a resumed run
    draws the same views again. Those of several steps are drawn ahead and sent to the device in one
    copy.

    Args:
        images: loader of this process's images, in batches of equal shape.
        make: makes the views of a batch; all its random numbers come from the generator.
        stream: additional numbers for the seed.
    """

    def __init__(self, images: Loader, make: MakeBatch, stream: Sequence[int] = (0,)) -> None:
        self.images, self.make, self.stream = images, make, stream

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.images)

    def epoch(self, number: int, first: int = 0) -> Iterator[TrainingBatch]:
        """The batches of an epoch from step `first` on."""
        ahead: Ahead = []
        for step, batch in enumerate(self.images.epoch(number, first), first):
            if not ahead:
                steps = range(step, min(step + STEPS_AHEAD, len(self)))
                ahead = self._draw(number, steps, batch.images)
            drawn, parameters = ahead.pop(0)
            yield drawn.apply(batch, parameters)

    def _draw(self, epoch: int, steps: range, images: Tensor) -> Ahead:
        """The views of some steps, for images like these, with their parameters on the device."""
        generator, drawn = torch.Generator(), []
        for step in steps:
            seed = mix_seed(self.images.seed, epoch, step, self.images.rank, *self.stream)
            drawn.append(self.make(images.shape, generator.manual_seed(seed)))
        # Stacked, so that the steps' parts of the copy are taken in few operations.
        parameters = zip(*(one.parameters for one in drawn), strict=True)
        stacks = send([torch.stack(same) for same in parameters], images.device)
        return [(one, iter([s[row] for s in stacks])) for row, one in enumerate(drawn)]


def share_of(fabric: "Fabric") -> dict[str, Any]:
    """Loader arguments that give each process its share of a batch."""
    return {
        "device": fabric.device,
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
    }


def training_loader(
    dataset: Dataset, config: Config, num_views: int, fabric: "Fabric"
) -> TrainingLoader:
    """The loader of this process's training batches.

    Images in memory are cropped on the device, with the rest of the view. Image files are cropped
    by the processes that read them, once per view as it specifies (the centre if it has no resized
    crop); the rest of the view is made on the device.
    """
    views = [named_view(name, dataset.image_size) for name in config.views]
    views = views * num_views if len(views) == 1 else views
    split, size = dataset.train, config.batch_size
    mix = None if config.mix == "none" else MIXES[config.mix](config.mix_alpha)
    given: dict[str, Any] = {
        "sampler": config.sampling,
        "seed": config.seed,
        "drop_last": True,
        **share_of(fabric),
    }
    if split.images is not None:
        return TrainingLoader(InMemoryLoader(split, size, **given), MakeViews(tuple(views), mix))
    crops, rest = zip(*(view.apart() for view in views), strict=True)
    transform: CentreCrop | RandomCrops = CentreCrop(dataset.image_size)
    if any(crops):
        scales = tuple(crop and crop.scale for crop in crops)
        transform = RandomCrops(dataset.image_size, scales)
    loader = WorkerLoader(split, size, transform=transform, workers=config.data.workers, **given)
    return TrainingLoader(loader, MakeViews(rest, mix, any(crops) and len(views) > 1))


@dataclass(frozen=True)
class MakeViews:
    """Makes the views of a batch of images.

    Args:
        views: V views.
        mix: mixes the first view, or None.
        read_apart: the images are (V, B, 3, H, W), cropped separately for each view when they were
            read, not (B, 3, H, W).
    """

    views: tuple[View, ...]
    mix: Mixup | CutMix | None = None
    read_apart: bool = False

    def __call__(self, shape: torch.Size, generator: torch.Generator) -> Drawn[TrainingBatch]:
        """Draws the views, and then the partners that the first is mixed with."""
        groups = [[view] for view in self.views] if self.read_apart else [self.views]
        views = [draw_views(shape[-4:], group, generator) for group in groups]
        mix = None if self.mix is None else self.mix.draw(shape[-4:], generator)

        def apply(batch: Batch, drawn: Iterator[Tensor]) -> TrainingBatch:
            parts = batch.images if self.read_apart else [batch.images]
            made = [view.apply(part, drawn) for view, part in zip(views, parts, strict=True)]
            images = torch.cat(made) if self.read_apart else made[0]
            if mix is None:
                return TrainingBatch(images, batch.target, batch.index)
            mixed = mix.apply(images[0], batch.target, drawn)
            images[0] = mixed.images
            partner = MixPartner(mixed.other, mixed.weight)
            return TrainingBatch(images, batch.target, batch.index, partner)

        parameters = [parameter for view in views for parameter in view.parameters]
        return Drawn((*parameters, *(mix.parameters if mix else ())), apply)


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
    """The crop of image files for a model of this data; small images are used whole."""
    if dataset.train.images is not None:
        return CentreCrop(dataset.image_size, margin=1.0)
    return CentreCrop(dataset.image_size)

"""Features of every image of a data set, made once: what a linear head is trained on."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from longtail.data import CentreCrop, DataConfig, Loader, load
from longtail.errors import InputError
from longtail.files import whole_file
from longtail.models import Backbone, create_backbone
from longtail.training.input import evaluation_crop, evaluation_loader
from longtail.training.processes import best_device
from longtail.training.run import Run

if TYPE_CHECKING:  # it takes seconds to import
    from lightning_fabric import Fabric

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class Embeddings:
    """Features of the images of a data set.

    Args:
        features: (N, D) float32.
        labels: (N,) class index.
        index: (N,) place of each image in its source.
        splits: `train`, `val` or `test` of each image.
        paths: file of each image.
        class_names: name of each class.
        name: of the data set.
        backbone: what made the features.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    splits: tuple[str, ...]
    paths: tuple[str, ...]
    class_names: tuple[str, ...]
    name: str
    backbone: str

    def part(self, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features and class indices of one split, as an estimator takes them.

        Raises:
            ValueError: when there is no image of that split.
        """
        chosen = np.array(self.splits) == split
        if not chosen.any():
            known = sorted(set(self.splits))
            raise InputError(f"split of Embeddings.part must be one of {known}, got {split!r}")
        return self.features[chosen], self.labels[chosen]

    def write(self, path: Path) -> None:
        """Writes a Parquet file, whole or not at all: features, label, split, path, index."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(self.features.reshape(-1))
        table = pa.table(
            {
                "features": pa.FixedSizeListArray.from_arrays(flat, self.features.shape[1]),
                "label": self.labels,
                "split": pa.array(self.splits, pa.string()),
                "path": pa.array(self.paths, pa.string()),
                "index": self.index,
            }
        )
        about = {"class_names": self.class_names, "name": self.name, "backbone": self.backbone}
        table = table.replace_schema_metadata({"longtail": json.dumps(about)})
        with whole_file(path) as part:
            pq.write_table(table, part)

    @classmethod
    def read(cls, path: str | Path) -> "Embeddings":
        """Reads what `write` wrote.

        Raises:
            ValueError: when the file holds no embeddings of this package.
        """
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            about = json.loads(table.schema.metadata[b"longtail"])
            features = table["features"].combine_chunks()
            return cls(
                features=features.flatten().to_numpy().reshape(len(table), -1),
                labels=table["label"].to_numpy(),
                index=table["index"].to_numpy(),
                splits=tuple(table["split"].to_pylist()),
                paths=tuple(table["path"].to_pylist()),
                class_names=tuple(about["class_names"]),
                name=about["name"],
                backbone=about["backbone"],
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no whole file of embeddings: {error}") from error


def embed_dataset(
    config: DataConfig, backbone: str, precision: Precision = "32-true"
) -> Embeddings:
    """Features of every image of a data set, each seen once, the way it is seen in prediction.

    Args:
        config: where the images come from; `image_size` is the size that the backbone sees.
        backbone: a pretrained one by its name, or the run folder of a trained model, which brings
            its own image size.
        precision: of the network; `bf16-mixed` is faster where the hardware has it.

    Raises:
        ValueError: when nobody knows the backbone, it has no pretrained weights, or the data
            cannot be read.
    """
    from lightning_fabric import Fabric

    encoder, crop = _encoder(backbone)
    if crop is not None:
        config = replace(config, image_size=crop.size)
    dataset = load(config)
    crop = crop or evaluation_crop(dataset)
    fabric = Fabric(accelerator=best_device(), devices=1, precision=precision)
    encoder.to(fabric.device).eval()
    features = [
        _features(fabric, encoder, evaluation_loader(split, crop, fabric.device, config.workers))
        for split in dataset.splits.values()
    ]
    parts = dataset.splits.items()
    return Embeddings(
        features=torch.cat(features).numpy(),
        labels=torch.cat([split.labels for _, split in parts]).numpy(),
        index=torch.cat([split.index for _, split in parts]).numpy(),
        splits=tuple(name for name, split in parts for _ in range(len(split))),
        paths=tuple(path for _, split in parts for path in split.paths),
        class_names=dataset.class_names,
        name=dataset.name,
        backbone=backbone,
    )


def _encoder(name: str) -> tuple[Backbone, CentreCrop | None]:
    """The backbone, and the crop that it wants where it comes from a run."""
    if not Path(name).is_dir():
        return create_backbone(name, pretrained=True), None
    run = Run(name)
    card = run.model_card()
    return run.model().backbone, CentreCrop(card["image_size"], card["margin"])


@torch.inference_mode()
def _features(fabric: "Fabric", encoder: Backbone, loader: Loader) -> Tensor:
    console = Console(stderr=True)
    batches = track(
        loader.epoch(0),
        "embedding",
        len(loader),
        console=console,
        disable=not console.is_terminal,
    )
    with fabric.autocast():
        return torch.cat([encoder(batch.images).float().cpu() for batch in batches])

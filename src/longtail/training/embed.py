"""Features of every image of a data set, computed once for training linear heads."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longtail.data import CentreCrop, DataConfig, Dataset, UnreadableImagesError, is_url, load
from longtail.errors import InputError
from longtail.features import FeatureCache, Network, Precision, extract, fastest, fingerprint
from longtail.files import parse_json
from longtail.models import Backbone, create_backbone
from longtail.training.distributed import best_device
from longtail.training.input import evaluation_crop
from longtail.training.predictions import Column, checked_labels, matrix_of, write_columns
from longtail.training.progress import progress_bar
from longtail.training.run import Run


@dataclass(frozen=True)
class Embeddings:
    """Features of the images of a data set.

    Args:
        features: (N, D) float32.
        labels: (N,) class index.
        index: (N,) index of each image in its source.
        splits: `train`, `val` or `test` of each image.
        paths: file of each image.
        class_names: name of each class.
        name: name of the data set.
        backbone: name or run folder of the network that made the features.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    splits: tuple[str, ...]
    paths: tuple[str, ...]
    class_names: tuple[str, ...]
    name: str
    backbone: str

    def split(self, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features and class indices of one split, as an estimator takes them.

        Raises:
            ValueError: for a split without images.
        """
        chosen = np.array(self.splits) == split
        if not chosen.any():
            known = sorted(set(self.splits))
            raise InputError(f"split of Embeddings must be one of {known}, got {split!r}")
        return self.features[chosen], self.labels[chosen]

    def write(self, path: Path) -> None:
        """Writes a Parquet file atomically: features, label, split, path, index."""
        columns: dict[str, Column] = {
            "features": self.features,
            "label": self.labels,
            "split": self.splits,
            "path": self.paths,
            "index": self.index,
        }
        about = {"class_names": self.class_names, "name": self.name, "backbone": self.backbone}
        write_columns(path, columns, about)

    @classmethod
    def read(cls, path: str | Path) -> "Embeddings":
        """Reads what `write` wrote.

        Raises:
            ValueError: for a file that does not contain embeddings of this package, or not all of
                them.
        """
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            about = parse_json(table.schema.metadata[b"longtail"])
            return cls(
                features=matrix_of(table, "features"),
                labels=checked_labels(table["label"].to_numpy(), len(about["class_names"])).numpy(),
                index=table["index"].to_numpy(),
                splits=tuple(table["split"].to_pylist()),
                paths=tuple(table["path"].to_pylist()),
                class_names=tuple(about["class_names"]),
                name=about["name"],
                backbone=about["backbone"],
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not a valid file of embeddings: {error}") from error


def embed_dataset(
    config: DataConfig, backbone: str, precision: Precision = "auto", *, trust: Any = ()
) -> Embeddings:
    """Features of every image of a data set, in the view of prediction.

    Features of a pretrained backbone are kept in a cache on disk, see
    `longtail.features.FeatureCache`.

    Args:
        config: source of the images. `image_size` is the size that the backbone sees; default: the
            size at which its weights were trained, if known.
        backbone: name of a pretrained backbone, or the run folder of a trained model, which has its
            own image size.
        precision: precision of the network; `auto` is bf16 on a GPU that supports it, else float32.
        trust: as for `longtail.training.RunFolder`, if `backbone` is a run folder.

    Raises:
        ValueError: for an unknown backbone, one without pretrained weights, or data that cannot be
            read.
    """
    encoder, crop = _encoder(backbone, trust)
    size = crop.size if crop else config.image_size or encoder.image_size
    dataset = load(decoded_later(config, size))
    features = dataset_features(
        dataset,
        encoder,
        crop or evaluation_crop(dataset),
        precision,
        threads=config.workers,
    )
    splits = dataset.splits.items()
    return Embeddings(
        features=np.concatenate([features[name] for name, _ in splits]),
        labels=torch.cat([split.labels for _, split in splits]).numpy(),
        index=torch.cat([split.index for _, split in splits]).numpy(),
        splits=tuple(name for name, split in splits for _ in range(len(split))),
        paths=tuple(path for _, split in splits for path in split.paths),
        class_names=dataset.class_names,
        name=dataset.name,
        backbone=backbone,
    )


def decoded_later(config: DataConfig, size: int | None) -> DataConfig:
    """Settings of data whose files are decoded by the engine, which reports unreadable ones.

    Args:
        config: settings of the data.
        size: size of the images.
    """
    files = config.check is None and (is_url(config.source) or Path(config.source).exists())
    return replace(config, image_size=size, check="exists" if files else config.check)


def dataset_features(
    dataset: Dataset,
    encoder: Backbone,
    crop: CentreCrop,
    precision: Precision = "auto",
    *,
    threads: int | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Features (N, D) of each split of a data set, by the name of the split.

    Args:
        dataset: the images.
        encoder: the backbone, in evaluation mode afterwards.
        crop: how an image is cut.
        precision: as for `embed_dataset`.
        threads: threads that read images; default: that of `longtail.features.outputs`.

    Raises:
        UnreadableImagesError: names every image that cannot be read.
    """
    total = sum(map(len, dataset.splits.values()))
    network, cache = cached_network(dataset, encoder, crop, precision)
    features: dict[str, NDArray[np.float32]] = {}
    failures: list[tuple[str, str]] = []
    try:
        with progress_bar("features", total) as advance:
            for name, split in dataset.splits.items():
                try:
                    features[name] = extract(
                        network,
                        split,
                        crop,
                        cache=cache,
                        threads=threads,
                        seen=advance,
                    )
                except UnreadableImagesError as error:  # those of all splits are reported
                    failures += error.failures
    finally:
        cache.close()
    if failures:
        raise UnreadableImagesError(failures, total)
    return features


def cached_network(
    dataset: Dataset, encoder: Backbone, crop: CentreCrop, precision: Precision = "auto"
) -> tuple[Network, FeatureCache]:
    """The network for the features of a data set, and the cache of its known features."""
    images = sum(map(len, dataset.splits.values()))
    network = fastest(encoder, crop.size, images, torch.device(best_device()), precision)
    reading = f"{crop} {network.precision}"
    return network, FeatureCache(fingerprint(encoder), reading, encoder.num_features)


def _encoder(name: str, trust: Any) -> tuple[Backbone, CentreCrop | None]:
    """The backbone, and its crop if it comes from a run."""
    if not Path(name).is_dir():
        return create_backbone(name, pretrained=True), None
    run = Run(name, trust)
    card = run.model_card()
    return run.model().backbone, CentreCrop(card["image_size"], card["margin"])

"""Whether an image is unlike all training images, by the features of a sample of them."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from longtail.data import Dataset, UnreadableImagesError
from longtail.data.stratified import rank_within_class
from longtail.errors import InputError
from longtail.files import whole_file
from longtail.training.distributed import best_device
from longtail.training.frozen import frozen_features
from longtail.training.inference import split_features
from longtail.training.input import evaluation_crop
from longtail.training.model_file import write_tensors
from longtail.training.run import Run

FILE = "reference.safetensors"
STORED = 2000  # training images, and at least one of each class
HELD_OUT = 1000


@dataclass(frozen=True)
class Reference:
    """Features of training images, and distances of held-out images from them.

    The distance of an image is one minus the cosine of its features and those of the nearest stored
    training image (Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML
    2022, arXiv 2204.06507). Only the nearest counts, since a rare class may have no second one.

    Args:
        features: (R, D) of unit norm.
        distances: (H,) of the held-out images, sorted.
    """

    features: Tensor
    distances: Tensor

    @classmethod
    def of(cls, features: Tensor, held_out: Tensor) -> Self:
        """The reference for training features (R, D) and held-out features (H, D)."""
        stored = F.normalize(features.float(), dim=1).half().float()  # as in the file
        made = cls(stored, torch.empty(0))
        return cls(stored, made.distance(held_out).sort().values)

    def distance(self, features: Tensor) -> Tensor:
        """Distance (N,) of features (N, D) from the training images."""
        return 1 - (F.normalize(features.float(), dim=1) @ self.features.T).amax(1)

    def unlike(self, features: Tensor) -> Tensor:
        """Share (N,) of the held-out images that are at least as far, counting the image itself.

        Near 0 for an image that is unlike all training images; uniform over (0, 1] for images like
        the held-out ones.
        """
        nearer = torch.searchsorted(self.distances, self.distance(features))
        count = len(self.distances)
        return (count - nearer + 1) / (count + 1)

    def write(self, folder: Path) -> None:
        """Writes `reference.safetensors` atomically.

        Raises:
            OSError: when it cannot be written.
        """
        tensors = {"features": self.features.half(), "distances": self.distances}
        with whole_file(folder / FILE) as part:
            write_tensors(part, tensors)

    @classmethod
    def read(cls, folder: Path, width: int) -> Self | None:
        """Reads what `write` wrote; None if there is no such file.

        Args:
            folder: the run folder.
            width: length of a feature vector, D.

        Raises:
            InputError: when the file is not valid, or has features of another length.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            tensors = load_file(path)
            features, distances = tensors["features"].float(), tensors["distances"].float()
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{path} is not a valid reference file: {error}") from error
        if features.shape != (len(features), width) or not len(features) or distances.ndim != 1:
            raise InputError(
                f"{path} is not a valid reference file: features must be (R, {width}) and "
                f"distances (H,), got {tuple(features.shape)} and {tuple(distances.shape)}"
            )
        return cls(features, distances)


def keep_reference(run: Run, dataset: Dataset) -> None:
    """Writes the reference of a finished run, if it has none.

    Without a test or val split there is nothing to calibrate with, and no file is written.

    Args:
        run: a finished run.
        dataset: the data that it was trained on.
    """
    held_out = dataset.evaluated
    if held_out is None or (run.folder / FILE).is_file():
        return
    rows = {
        "train": spread_rows(dataset.train.labels, STORED),
        held_out: spread_rows(dataset.splits[held_out].labels, HELD_OUT),
    }
    backbone = run.model().backbone
    try:
        if run.config["tune"] == "head":  # they are known
            features = frozen_features(dataset, backbone)
            chosen = [features[name][taken] for name, taken in rows.items()]
        else:
            crop, device = evaluation_crop(dataset), torch.device(best_device())
            splits = (dataset.splits[name].take(taken) for name, taken in rows.items())
            chosen = [split_features(backbone, split, crop, device) for split in splits]
    except UnreadableImagesError as error:  # they have changed since; the run itself is complete
        reason = str(error).partition("\n")[0].rstrip(":")
        warnings.warn(f"{run.folder}: no {FILE} is written: {reason}", stacklevel=2)
        return
    Reference.of(*chosen).write(run.folder)


def spread_rows(labels: Tensor, count: int) -> Tensor:
    """Rows of about `count` images: up to the same number per class, or all of a smaller class.

    Examples:
        >>> spread_rows(torch.tensor([0, 0, 0, 0, 1]), 3).tolist()
        [0, 2, 4]
    """
    counts = torch.bincount(labels)
    most = 1
    while counts.clamp(max=most + 1).sum() <= count and most < int(counts.max()):
        most += 1
    every = -(-counts // most)  # of how many images of a class one is taken
    return (rank_within_class(labels) % every[labels] == 0).nonzero().flatten()

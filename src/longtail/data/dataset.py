"""The common form of all data sets: labelled images in up to three splits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from torch import Tensor

from longtail.prior import ClassPrior


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set: train, val or test.

    Args:
        labels: (N,) int64, class index of each image.
        index: (N,) int64, index of each image in its source, the same in every run.
        images: (N, 3, H, W) uint8 RGB for images in memory; None: worker processes read `paths`.
        paths: file of each image, or a name such as `digits-lt/123` if there is no file.
    """

    labels: Tensor
    index: Tensor
    images: Tensor | None
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def files(self) -> list[tuple[str, ...]]:
        """Files of each image, from `paths`."""
        return [(path,) for path in self.paths]

    def take(self, indices: Tensor) -> "Split":
        """The images at `indices` (n,), in that order."""
        return Split(
            labels=self.labels[indices],
            index=self.index[indices],
            images=None if self.images is None else self.images[indices],
            paths=tuple(self.paths[i] for i in indices.tolist()),
        )


AnySplit = TypeVar("AnySplit", bound=Split, covariant=True)


@dataclass(frozen=True, eq=False)
class TrainingData(ABC, Generic[AnySplit]):
    """A data set in up to three splits: what a training needs of it, whatever the task.

    Args:
        name: name shown in tables and reports.
        class_names: name of each class, in the order of the class indices.
        train: training split, in which every class occurs.
        val: validation split, if there is one.
        test: test split, if there is one.
    """

    name: str
    class_names: tuple[str, ...]
    train: AnySplit
    val: AnySplit | None
    test: AnySplit | None

    @property
    @abstractmethod
    def prior(self) -> ClassPrior:
        """Class prior of the training split."""

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    @property
    def splits(self) -> dict[str, AnySplit]:
        """The existing splits by name: train, val, test."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def evaluated(self) -> str | None:
        """Name of the split that a run is evaluated on: test, else val, else None."""
        return next((name for name in ("test", "val") if name in self.splits), None)


@dataclass(frozen=True, eq=False)
class Dataset(TrainingData[Split]):
    """A data set of images, each of one class.

    Args:
        name: name shown in tables and reports.
        class_names: name of each class, in the order of the class indices.
        train: training split, with at least one image per class.
        val: validation split for choosing settings, if there is one.
        test: test split, if there is one.
        image_size: side in pixels of the model's square input images.
    """

    image_size: int

    @cached_property
    def prior(self) -> ClassPrior:
        """Class counts of the training split."""
        return ClassPrior.from_labels(self.train.labels, self.num_classes)

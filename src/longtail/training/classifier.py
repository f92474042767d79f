"""A run's model for batches of images, under any class prior."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from longtail.data import CentreCrop, Split
from longtail.features import fastest, outputs
from longtail.features.engine import Chunk
from longtail.shift import PriorEstimate, estimate_prior, expressed_prior, resolve_prior
from longtail.shift.adjust import log_ratio
from longtail.training.distributed import best_device
from longtail.training.reference import Reference
from longtail.training.run import Run


class Batch(NamedTuple):
    """Predictions of consecutive images.

    Args:
        read: the images that were read, as indices in the split.
        logits: (len(read), C).
        unlike: (len(read),), see `Reference.unlike`; NaN if the run has no reference.
        failures: index and reason of each image that could not be read.
    """

    read: list[int]
    logits: Tensor
    unlike: Tensor
    failures: list[tuple[int, str]]


class Classifier:
    """A run's model, and the prior that it predicts for.

    Args:
        run: a finished run.
        target_prior: `uniform`, `source`, a file of probabilities, or `estimate`: the class prior
            of the images, estimated with the run's labelled predictions as the source; default:
            the prior that the model expresses.

    Attributes:
        class_names: C names.
        crop: how an image is read.
        estimate: estimated class prior of the images, once they have been predicted; None if none
            can be read.

    Raises:
        InputError: for an invalid prior, or if there are no labelled predictions for an estimate.
    """

    def __init__(self, run: Run, target_prior: str | None = None) -> None:
        card = run.model_card()
        self.class_names: tuple[str, ...] = tuple(card["class_names"])
        self.crop = CentreCrop(card["image_size"], card["margin"])
        self.estimate: PriorEstimate | None = None
        names = self.class_names
        self._prior = run.prior
        self._expressed = expressed_prior(card["expresses"], run.prior)
        self._source = run.predictions() if target_prior == "estimate" else None
        self._shift: Tensor | None = None
        if target_prior is not None and self._source is None:
            target = resolve_prior(target_prior, run.prior, len(names), names)
            self._shift = log_ratio(self._expressed, target)
        model = run.model()
        self._reference = Reference.read(run.folder, model.backbone.num_features)
        self._backbone, self._head = model.backbone, model.head

    def batches(self, split: Split) -> Iterator[Batch]:
        """Predictions for the images of a split in order, in constant memory.

        If the class prior is estimated, the logits of all images are kept until it is known.
        """
        device = torch.device(best_device())
        network = fastest(self._backbone, self.crop.size, len(split), device, "32-true")
        batches = self._raw(outputs(network, split, self.crop))
        if self._source is not None:
            kept = list(batches)
            if any(batch.read for batch in kept):
                self._shift = self._estimated([batch.logits for batch in kept])
            batches = iter(kept)
        for batch in batches:
            if self._shift is not None:
                batch = batch._replace(logits=batch.logits + self._shift.to(batch.logits))
            yield batch

    @torch.no_grad()
    def _raw(self, chunks: Iterator[Chunk]) -> Iterator[Batch]:
        """Unadjusted predictions."""
        for chunk in chunks:
            logits, unlike = torch.empty(0, len(self.class_names)), torch.empty(0)
            if chunk.indices:
                features = torch.from_numpy(chunk.outputs)
                logits = self._head(features).float()
                unlike = torch.full((len(features),), torch.nan)
                if self._reference is not None:
                    unlike = self._reference.unlike(features)
            yield Batch(chunk.indices, logits, unlike, chunk.failures)

    def _estimated(self, logits: Sequence[Tensor]) -> Tensor:
        """Adjusts the logits to the estimated class prior of the images."""
        assert self._source is not None
        self.estimate = estimate_prior(
            self._source.logits,
            self._source.labels,
            torch.cat(list(logits)),
            self._expressed,
            training_prior=self._prior,
        )
        return log_ratio(self._expressed, self.estimate.prior)


def top_classes(
    logits: Tensor, class_names: Sequence[str], k: int
) -> Iterator[list[tuple[str, float]]]:
    """The `k` most probable classes of each image with their probabilities, highest first.

    Args:
        logits: (N, C).
        class_names: C names.
        k: number of classes, at most C.
    """
    found = torch.softmax(logits.double(), 1).topk(min(k, len(class_names)))
    for classes, values in zip(found.indices.tolist(), found.values.tolist(), strict=True):
        yield [(class_names[c], value) for c, value in zip(classes, values, strict=True)]

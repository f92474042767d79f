"""GML for pixels: logit-adjusted classifier of all, mutual information of sampled ones."""

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from longtail.losses import GMLLoss, LogitAdjustedLoss
from longtail.memory import ClassQueue, gather_keys, gather_with_grad, this_process
from longtail.models import Frozen, Projection, create_dense_head, update_ema
from longtail.prior import ClassPrior
from longtail.ranges import MAX_COUNT, MAX_QUEUE, check_range
from longtail.segmentation.methods.base import PixelMethod
from longtail.segmentation.methods.pixels import (
    SampledPixels,
    pixel_loss,
    sample_pixels,
    shrink,
    unused,
)
from longtail.segmentation.model import DenseBackbone, Segmenter, upsample


class PixelGML(PixelMethod):
    """GML for pixels: class-wise queue of sampled pixel features, learned temperature.

    Suh and Seo, ICML 2023, arXiv 2305.01160. Its authors report segmentation results but published
    no code for them, so the following is our own design. The logit-adjusted loss of the classifier
    covers all pixels, with the pixel prior. The classifier is linear, while the paper's is cosine,
    since a cosine one was worse in streets that no training image shows (EXPERIMENTS.md). The
    mutual information is that of sampled pixels, a fixed number per class and image: its cost does
    not grow with the resolution, and a rare class contributes in every image that it appears in.
    The sampled pixels have a different class prior from all pixels: nearly the share of images that
    contain each class. The queue and the scores use that prior, since the bound would otherwise be
    for a prior that is not sampled from.

    Keys come from the teacher or the momentum copy, which sees only a share of the batch, since the
    queue remembers the rest. The copy normalises by the student's running statistics, since those
    of so few images would distinguish the images and not the classes. A key of the query's own
    image is left out when the temperature is trained, as in the paper.

    Args:
        prior: pixels of each class in the training set.
        backbone: the student.
        image_prior: number of training images with each class.
        teacher: a trained segmenter; it is frozen and not part of the state. It sees the whole
            batch, and its logits are distilled at the sampled pixels.
        head: `linear`, or `cosine` (scale 30) as in the paper.
        queue_size: keys in the queue, K; default: 2048, or twice `queue_base` keys per class,
            whichever is larger.
        queue_base: least number of keys per class.
        queries: number of scored pixels per class and image.
        keys: number of pixels per class and image that enter the queue.
        key_share: share of the batch that the momentum copy sees.
        width: width of the embeddings, E.
        hidden: width inside the projections; default: that of their input.
        temperature: initial temperature of the class scores.
        momentum: share of the old weights that the momentum copy keeps.
        alpha: weight of the distillation; no effect without a teacher.
        beta: weight of the contrastive loss.
        gamma: weight of the classifier's loss.

    Raises:
        InputError: when the head is unknown, or a number is out of its range.
    """

    name = "gml"
    teacher_method: ClassVar = {"name": "logit_adjust"}  # only the classifier's part of the loss
    expresses = "uniform"

    def __init__(
        self,
        prior: ClassPrior,
        backbone: DenseBackbone,
        *,
        image_prior: ClassPrior,
        teacher: Segmenter | None = None,
        head: str = "linear",
        queue_size: int | None = None,
        queue_base: int = 16,
        queries: int = 4,
        keys: int = 8,
        key_share: float = 0.125,
        width: int = 32,
        hidden: int | None = None,
        temperature: float = 0.1,
        momentum: float = 0.99,
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
    ) -> None:
        super().__init__()
        _check(queries, keys, key_share)
        check_range("queue_base of gml", queue_base, least=1, most=MAX_QUEUE)
        check_range("momentum of gml", momentum, least=0, most=1)
        check_range("alpha of gml", alpha, least=0)
        check_range("gamma of gml", gamma, least=0)
        features, num_classes = backbone.num_features, prior.num_classes
        self.head = create_dense_head(head, features, num_classes)
        self.model = Segmenter(backbone, self.head)
        self.project_query = Projection(features, hidden, width)
        self.teacher = None if teacher is None else Frozen(teacher)
        if teacher is None:
            self.key_encoder = copy.deepcopy(backbone).eval().requires_grad_(False)
            self.key_encoder.frozen = True
            self.project_key = copy.deepcopy(self.project_query).requires_grad_(False)
        else:
            features = teacher.backbone.num_features
            self.project_key = Projection(features, hidden, width)
        size = max(2048, 2 * queue_base * num_classes) if queue_size is None else queue_size
        self.queue = ClassQueue(image_prior, size=size, width=features, base=queue_base)
        self.classifier_loss = LogitAdjustedLoss(prior)
        self.contrast = GMLLoss(
            image_prior,
            temperature=temperature,
            alpha=alpha if self.teacher else 0.0,
            beta=beta,
            gamma=0.0,  # the classifier's part covers all pixels
            logit_scale=1.0,  # the head's own is in its logits
        )
        self.queries, self.keys, self.key_share = queries, keys, key_share
        self.momentum, self.gamma = momentum, gamma

    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Loss of a batch, after its keys have entered the queue; see `PixelMethod`."""
        (images,) = views
        features = self.model.backbone(images)
        logits = self.head(features)
        loss = self.gamma * pixel_loss(self.classifier_loss, logits, target)
        teacher_logits = self.enqueue(images, target, index)
        small = shrink(target, features.shape[-2:])
        chosen = sample_pixels(small, len(self.head.weight), self.queries)
        # From all processes, since a query without keys of its class does not count in the mean.
        labels, query_index = gather_keys(chosen.labels, index[chosen.images], ragged=True)
        stored = self.queue.keys()
        filled = (stored.labels >= 0).nonzero().squeeze(1)  # empty ones would enter the batch norm
        if min(len(labels), len(filled)) > 1:  # a batch norm needs two
            mine = self.of_queries(chosen, features, logits, teacher_logits)
            loss = loss + self.contrast(
                **mine,
                key=self.project_key(stored.features[filled]),
                key_labels=stored.labels[filled],
                target=labels,
                query_index=query_index,
                key_index=stored.index[filled],
            )
        elif this_process()[1] > 1:
            loss = loss + unused(self.project_query, self.project_key, self.contrast)
        return {"loss": loss, "temperature": self.contrast.log_temperature.detach().exp()}

    @torch.no_grad()
    def enqueue(self, images: Tensor, target: Tensor, index: Tensor) -> Tensor | None:
        """Adds keys of the batch to the queue; returns the teacher's logits, if distilled."""
        logits = None
        if self.teacher:
            teacher = self.teacher.network
            features = teacher.backbone(images)
            if self.contrast.alpha:
                logits = teacher.head(features)
        else:
            count = self.key_images(len(images))
            features = self.key_encoder(images[: max(count, 1)])[:count]
        small = shrink(target[: len(features)], features.shape[-2:])
        chosen = sample_pixels(small, len(self.head.weight), self.keys)
        keys = (chosen.of(features), chosen.labels, index[chosen.images])
        self.queue.enqueue(*gather_keys(*keys, ragged=True))
        return logits

    def key_images(self, batch: int) -> int:
        """Images of this process that the momentum copy sees: the first of the global batch."""
        rank, processes = this_process()
        count = max(1, round(self.key_share * batch * processes))
        return min(max(count - rank * batch, 0), batch)

    def of_queries(
        self,
        chosen: SampledPixels,
        features: Tensor,
        logits: Tensor,
        teacher_logits: Tensor | None,
    ) -> dict[str, Tensor | None]:
        """Embeddings, logits and teacher's logits of the sampled pixels of all processes."""
        query = gather_with_grad(self.project_query(chosen.of(features)), ragged=True)
        if teacher_logits is None:
            logits = logits.detach()  # nothing to distil: avoids a gradient of zeros
        else:
            teacher_logits = chosen.of(upsample(teacher_logits, logits.shape[-2:]))
            (teacher_logits,) = gather_keys(teacher_logits, ragged=True)
        rows = gather_with_grad(chosen.of(logits), ragged=True)
        return {"query": query, "logits": rows, "teacher_logits": teacher_logits}

    @torch.no_grad()
    def after_step(self) -> None:
        """Updates the momentum copy, if there is no teacher."""
        if self.teacher is None:
            update_ema(self.key_encoder, self.model.backbone, self.momentum)
            update_ema(self.project_key, self.project_query, self.momentum)
            statistics = zip(self.key_encoder.buffers(), self.model.backbone.buffers(), strict=True)
            for ours, theirs in statistics:
                ours.copy_(theirs)

    def no_weight_decay(self) -> list[nn.Parameter]:
        """The learned temperature has no weight decay."""
        return [self.contrast.log_temperature]


def _check(queries: int, keys: int, key_share: float) -> None:
    for name, value in {"queries": queries, "keys": keys}.items():
        check_range(f"{name} of gml", value, least=1, most=MAX_COUNT)
    check_range("key_share of gml", key_share, above=0, most=1)

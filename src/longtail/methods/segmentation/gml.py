"""GML of pixels: logit-adjusted classifier of all, mutual information of sampled ones."""

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses import GMLLoss, LogitAdjustedLoss
from longtail.memory import ClassQueue, gather_keys
from longtail.methods.segmentation.base import PixelMethod
from longtail.methods.segmentation.pixels import (
    SampledPixels,
    pixel_loss,
    sample_pixels,
    shrink,
)
from longtail.models import (
    DenseBackbone,
    Frozen,
    Projection,
    Segmenter,
    create_dense_head,
    update_ema,
    upsample,
)
from longtail.prior import ClassPrior


class PixelGML(PixelMethod):
    """GML of pixels: class-wise queue of sampled pixel features, learned temperature.

    Suh and Seo, ICML 2023, arXiv 2305.01160, whose authors report segmentation but published no
    code for it: what follows is ours. The logit-adjusted loss of the classifier is that of every
    pixel, with the prior of pixels; the classifier is linear where the paper's is cosine, since a
    cosine one did worse in places that no training image shows (EXPERIMENTS.md). The mutual
    information is that of sampled pixels, a fixed number a class and image, so that its cost does
    not grow with the resolution and a rare class has a voice in every image it is in. These pixels
    have another mix than all pixels, nearly that of the images that have each class: so that is the
    prior of queue and scores, else the bound would be that of a mix that nobody draws from.

    Keys come from the teacher or the momentum copy, which sees a share of the batch alone: the
    queue remembers the rest. The copy normalises by the student's running statistics, since those
    of so few images would tell the images apart and not the classes. A key of the query's own
    image is left out where the temperature is trained, as in the paper.

    Args:
        prior: pixels of each class in the training set.
        backbone: the student.
        image_prior: training images that have each class.
        teacher: a trained segmenter; it is frozen, and no part of the state. It sees the whole
            batch, and its logits are distilled at the sampled pixels.
        head: `linear`, or `cosine` (scale 30) as in the paper.
        queue_size: keys in the queue, K; when not given 2048, or of many classes twice what
            `queue_base` keys of each take.
        queue_base: least number of keys of a class.
        queries: sampled pixels of a class and image that are scored.
        keys: sampled pixels of a class and image that enter the queue.
        key_share: share of the batch that the momentum copy sees.
        width: of the embeddings, E.
        hidden: width inside the projections; that of their input when not given.
        temperature: of the class scores, at the start.
        momentum: share of the old weights kept by the momentum copy.
        alpha: weight of the distillation; without effect where there is no teacher.
        beta: weight of the contrastive part.
        gamma: weight of the classifier's part.

    Raises:
        ValueError: when nobody knows the head, or a number is out of its range.
    """

    name = "gml"
    teacher_method: ClassVar = {"name": "logit_adjust"}  # the classifier's part of the loss alone
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
            gamma=0.0,  # the classifier's part is that of all pixels
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
        if len(chosen) > 1:  # a batch norm needs two
            loss = loss + self.mutual_information(chosen, features, logits, teacher_logits, index)
        return {"loss": loss, "temperature": self.contrast.log_temperature.detach().exp()}

    @torch.no_grad()
    def enqueue(self, images: Tensor, target: Tensor, index: Tensor) -> Tensor | None:
        """Puts keys of the batch into the queue; returns the teacher's logits, if there is one."""
        logits = None
        if self.teacher:
            teacher = self.teacher.network
            features = teacher.backbone(images)
            logits = teacher.head(features)
        else:
            count = max(1, round(self.key_share * len(images)))
            features = self.key_encoder(images[:count])
        small = shrink(target[: len(features)], features.shape[-2:])
        chosen = sample_pixels(small, len(self.head.weight), self.keys)
        keys = (chosen.of(features), chosen.labels, index[chosen.images])
        self.queue.enqueue(*gather_keys(*keys, ragged=True))
        return logits

    def mutual_information(
        self,
        chosen: SampledPixels,
        features: Tensor,
        logits: Tensor,
        teacher_logits: Tensor | None,
        index: Tensor,
    ) -> Tensor:
        """Class scores of the sampled pixels against the queue, and their distillation."""
        stored = self.queue.keys()
        filled = (stored.labels >= 0).nonzero().squeeze(1)  # empty ones would enter the batch norm
        if len(filled) < 2:
            return logits.new_zeros(())
        if teacher_logits is None:
            logits = logits.detach()  # nothing to distil: spares a gradient of nothing but zeros
        else:
            teacher_logits = chosen.of(upsample(teacher_logits, logits.shape[-2:]))
        loss: Tensor = self.contrast(
            query=self.project_query(chosen.of(features)),
            key=self.project_key(stored.features[filled]),
            key_labels=stored.labels[filled],
            logits=chosen.of(logits),
            target=chosen.labels,
            query_index=index[chosen.images],
            key_index=stored.index[filled],
            teacher_logits=teacher_logits,
        )
        return loss

    @torch.no_grad()
    def after_step(self) -> None:
        """Moves the momentum copy, where there is no teacher."""
        if self.teacher is None:
            update_ema(self.key_encoder, self.model.backbone, self.momentum)
            update_ema(self.project_key, self.project_query, self.momentum)
            statistics = zip(self.key_encoder.buffers(), self.model.backbone.buffers(), strict=True)
            for ours, theirs in statistics:
                ours.copy_(theirs)

    def no_weight_decay(self) -> list[nn.Parameter]:
        """The temperature is learned without weight decay."""
        return [self.contrast.log_temperature]


def _check(queries: int, keys: int, key_share: float) -> None:
    for name, value in {"queries": queries, "keys": keys}.items():
        if value < 1:
            raise InputError(f"{name} of gml must be >= 1, got {value}")
    if not 0 < key_share <= 1:
        raise InputError(f"key_share of gml must lie in (0, 1], got {key_share}")

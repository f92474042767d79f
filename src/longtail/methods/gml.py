"""GML: Gaussian mixture likelihood, with a teacher or with a momentum encoder."""

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses import ClassificationLoss, DBMLoss, GMLLoss, LogitAdjustedLoss
from longtail.memory import ClassQueue, Keys, gather_keys, gather_with_grad
from longtail.methods.base import Method, MixPartner, classifier_loss
from longtail.models import Backbone, CosineHead, Frozen, ImageClassifier, Projection, update_ema
from longtail.prior import ClassPrior
from longtail.ranges import check_range


class GML(Method):
    """GML: mutual information of features and labels, a class-wise queue, a learned temperature.

    Suh and Seo, Long-Tailed Recognition by Mutual Information Maximization between Latent Features
    and Ground-Truth Labels, ICML 2023, arXiv 2305.01160.
    Differences from the authors' code: only filled slots of the queue count; the learned
    temperature is part of the checkpoint; the loss works in the log domain (see `gml_loss`).

    With a teacher, the queue stores its features of the key view, a trained projection embeds the
    whole queue in every step, and its logits are distilled. Without one, a momentum copy of
    backbone and projection encodes the keys, and nothing is distilled.

    Args:
        prior: class prior of the training set.
        backbone: the student.
        teacher: a trained classifier with a cosine head; it is frozen and not part of the state.
        queue_size: number of keys in the queue, K.
        queue_base: least number of keys per class.
        width: width of the embeddings, E.
        hidden: width inside the projections; default: that of their input.
        temperature: initial temperature of the class scores.
        momentum: fraction of the old weights that the momentum encoder keeps.
        alpha: weight of the distillation; no effect without a teacher.
        beta: weight of the contrastive loss.
        gamma: weight of the classifier's loss.
        max_margin: margin of the rarest class in the classifier's loss, radians, see
            `longtail.losses.dbm_loss`; 0: none, as in the paper of GML.

    Raises:
        ValueError: when the teacher's head is not a cosine head, or has another number of classes.
    """

    name = "gml"
    use = "long training from scratch: mutual information, three views, optional teacher"
    num_views = 3
    # Only the classifier's loss, with which the paper trains its teachers.
    teacher_method: ClassVar = {"name": "logit_adjust", "head": "cosine"}
    expresses = "uniform"

    def __init__(
        self,
        prior: ClassPrior,
        backbone: Backbone,
        *,
        teacher: ImageClassifier | None = None,
        queue_size: int = 4096,
        queue_base: int = 2,
        width: int = 32,
        hidden: int | None = None,
        temperature: float = 0.1,
        momentum: float = 0.999,
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        max_margin: float = 0.0,
    ) -> None:
        super().__init__()
        _check_teacher(teacher, prior.num_classes)
        check_range("momentum of gml", momentum, least=0, most=1)
        check_range("alpha of gml", alpha, least=0)
        check_range("gamma of gml", gamma, least=0)
        features = backbone.num_features
        head = CosineHead(features, prior.num_classes)
        self.model = ImageClassifier(backbone, head)
        self.head = head
        self.project_query = Projection(features, hidden, width)
        self.momentum = momentum
        self.teacher = None if teacher is None else Frozen(_fast_copy(teacher))
        if teacher is None:
            self.key_encoder = copy.deepcopy(backbone).requires_grad_(False)
            self.project_key = copy.deepcopy(self.project_query).requires_grad_(False)
        else:
            features = teacher.backbone.num_features
            self.project_key = Projection(features, hidden, width)
        self.queue = ClassQueue(prior, size=queue_size, width=features, base=queue_base)
        self._full = False
        self.criterion = GMLLoss(
            prior,
            temperature=temperature,
            alpha=alpha if self.teacher else 0.0,
            beta=beta,
            gamma=0.0,  # the classifier's loss is computed separately, since its view may be mixed
            logit_scale=head.scale,
        )
        self.classify: ClassificationLoss = LogitAdjustedLoss(prior)
        if max_margin:
            self.classify = DBMLoss(prior, max_margin=max_margin, scale=head.scale)
        self.gamma = gamma

    def forward(
        self, views: Tensor, target: Tensor, index: Tensor, partner: MixPartner | None = None
    ) -> dict[str, Tensor]:
        """Loss of a batch, after its keys have entered the queue; see `Method.forward`."""
        classifier_view, query_view, key_view = views
        features = self.model.backbone(torch.cat([classifier_view, query_view]))
        classifier_features, query_features = features.chunk(2)
        key_features, teacher_cosine = self.encode_keys(classifier_view, key_view)
        # The rows of all processes, since a row without keys of its class does not count in the
        # mean.
        key_features, target, index = gather_keys(key_features, target, index)
        self.queue.enqueue(key_features, target, index)
        stored = self.stored_keys()
        cosine = gather_with_grad(self.head.cosine(classifier_features))
        logits = self.head.scale * cosine
        loss = self.gamma * classifier_loss(self.classify, logits, target, partner)
        loss = loss + self.criterion(
            query=gather_with_grad(self.project_query(query_features)),
            key=self.project_key(stored.features),
            key_labels=stored.labels,
            logits=cosine,
            target=target,
            query_index=index,
            key_index=stored.index,
            teacher_logits=None if teacher_cosine is None else gather_with_grad(teacher_cosine),
        )
        return {"loss": loss, "temperature": self.criterion.log_temperature.detach().exp()}

    @torch.no_grad()
    def encode_keys(
        self, classifier_view: Tensor, key_view: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Raw features of the keys (B, D), and the teacher's cosines (B, C) if distilled."""
        if self.teacher is None:
            return self.key_encoder(key_view), None
        teacher = self.teacher.network
        if not self.criterion.alpha:
            return teacher.backbone(key_view), None
        features = teacher.backbone(torch.cat([classifier_view, key_view]))
        classifier_features, key_features = features.chunk(2)
        assert isinstance(teacher.head, CosineHead)
        return key_features, teacher.head.cosine(classifier_features)

    def stored_keys(self) -> Keys:
        """Filled slots of the queue, since empty ones would enter the batch norm statistics."""
        stored = self.queue.keys()
        if not self._full:  # a full queue stays full, so the host waits only in the first epoch
            kept = stored.labels >= 0
            self._full = bool(kept.all())
            stored = Keys(stored.features[kept], stored.labels[kept], stored.index[kept])
        return stored

    @property
    def static(self) -> bool:
        """True once the queue is full; until then the number of its keys grows."""
        return self._full

    def after_step(self) -> None:
        """Updates the momentum encoder, if there is no teacher."""
        if self.teacher is None:
            update_ema(self.key_encoder, self.model.backbone, self.momentum)
            update_ema(self.project_key, self.project_query, self.momentum)

    def no_weight_decay(self) -> list[nn.Parameter]:
        """The learned temperature has no weight decay."""
        return [self.criterion.log_temperature]


def _check_teacher(teacher: ImageClassifier | None, num_classes: int) -> None:
    if teacher is None:
        return
    if not isinstance(teacher.head, CosineHead):
        raise InputError(
            f"teacher of GML must have a cosine head (method.head cosine), got {type(teacher.head)}"
        )
    if teacher.num_classes != num_classes:
        raise InputError(
            f"teacher of GML must have the run's {num_classes} classes, got {teacher.num_classes}"
        )


def _fast_copy(teacher: ImageClassifier) -> ImageClassifier:
    return ImageClassifier(teacher.backbone.for_inference(), copy.deepcopy(teacher.head))

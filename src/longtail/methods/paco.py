"""PaCo: parametric contrastive learning, with a momentum encoder and a queue."""

import copy

import torch
from torch import Tensor

from longtail.losses import PaCoLoss
from longtail.memory import FifoQueue, gather_keys, gather_with_grad
from longtail.methods.base import Method
from longtail.models import (
    Backbone,
    ImageClassifier,
    LinearHead,
    Projection,
    update_ema,
)
from longtail.prior import ClassPrior
from longtail.ranges import check_range


class PaCo(Method):
    """PaCo: contrast of two views and a queue with the classifier's weights as class centres.

    Cui et al., Parametric Contrastive Learning, ICCV 2021, arXiv 2107.12028. The first view goes
    through the network, the second one through its momentum copy.
    Differences from the authors' code: the queue starts empty, not with random keys.

    Args:
        prior: class prior of the training set.
        backbone: images to features.
        queue_size: keys in the queue, K.
        width: width of the embeddings, E.
        hidden: width inside the projections; default: that of their input.
        momentum: fraction of the old weights that the momentum encoder keeps.
        alpha: weight of a positive embedding.
        temperature: above 0, divides the similarities.
    """

    name = "paco"
    use = "long training from scratch: contrast with class centres, two views and a queue"
    num_views = 2
    mixes = False
    expresses = "uniform"

    def __init__(
        self,
        prior: ClassPrior,
        backbone: Backbone,
        *,
        queue_size: int = 1024,
        width: int = 32,
        hidden: int | None = None,
        momentum: float = 0.999,
        alpha: float = 0.05,
        temperature: float = 0.05,
    ) -> None:
        super().__init__()
        check_range("momentum of paco", momentum, least=0, most=1)
        features = backbone.num_features
        self.head = LinearHead(features, prior.num_classes)
        self.model = ImageClassifier(backbone, self.head)
        self.project = Projection(features, hidden, width)
        self.key_encoder = copy.deepcopy(backbone).requires_grad_(False)
        self.project_key = copy.deepcopy(self.project).requires_grad_(False)
        self.queue = FifoQueue(size=queue_size, width=width)
        self.criterion = PaCoLoss(prior, alpha=alpha, temperature=temperature)
        self.momentum = momentum

    def forward(self, views: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Loss of a batch, whose keys then enter the queue; see `Method.forward`."""
        features = self.model.backbone(views[0])
        with torch.no_grad():
            key = self.project_key(self.key_encoder(views[1]))
        key, target = gather_keys(key, target)
        query = gather_with_grad(self.project(features))
        loss = self.criterion(
            torch.cat([query, key.to(query), self.queue.features.to(query)]),
            torch.cat([target, target, self.queue.labels]),
            gather_with_grad(self.head(features)),
        )
        self.queue.enqueue(key, target)
        return {"loss": loss}

    def after_step(self) -> None:
        """Moves the momentum encoder."""
        update_ema(self.key_encoder, self.model.backbone, self.momentum)
        update_ema(self.project_key, self.project, self.momentum)

"""Balanced contrastive learning on fixed features, with a small network as the backbone."""

from typing import Any

import torch
from torch import Tensor, nn

from longtail.losses import BalancedContrastiveLoss, LogitAdjustedLoss
from longtail.models import CosineHead, Projection
from longtail.prior import ClassPrior
from longtail.ranges import check_range


class ContrastNetwork(nn.Module):
    """A trainable layer on fixed features, with the two branches of BCL on top.

    Zhu et al., Balanced Contrastive Learning for Long-Tailed Visual Recognition, CVPR 2022, arXiv
    2207.09052: classifier_weight times logit-adjusted cross-entropy of a cosine classifier, plus
    contrast_weight times `BalancedContrastiveLoss` over two views and the prototypes, which are the
    projected weights of the classifier.
    Differences from the paper: the features are fixed, so one linear layer replaces the backbone,
    and the views differ by dropout instead of augmentation.

    Args:
        mean: (num_features,), subtracted from the features.
        scale: scalar or (num_features,), divisor of the centred features.
        prior: the class prior of the training set.
        width: number of units of the trainable layer.
        dropout: fraction of the features dropped in each view.
        temperature: above 0, divides the similarities of the contrastive loss.
        classifier_weight: lambda in the paper.
        contrast_weight: mu in the paper.
    """

    mean: Tensor
    scale: Tensor
    epochs: int

    def __init__(
        self,
        mean: Tensor,
        scale: Tensor,
        prior: ClassPrior,
        *,
        width: int = 256,
        dropout: float = 0.3,
        temperature: float = 0.1,
        classifier_weight: float = 2.0,
        contrast_weight: float = 0.6,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Linear(len(mean), width)
        self.head = CosineHead(width, prior.num_classes)
        self.projection = Projection(width, width, 128)
        self.classify = LogitAdjustedLoss(prior)
        self.contrast = BalancedContrastiveLoss(temperature=temperature)
        self.classifier_weight, self.contrast_weight = classifier_weight, contrast_weight

    def hidden(self, x: Tensor) -> Tensor:
        """(batch, width) of features (batch, num_features)."""
        hidden: Tensor = self.layer(self.dropout((x - self.mean) / self.scale))
        return hidden

    def logits(self, x: Tensor) -> Tensor:
        """Logits (batch, num_classes), which express the uniform prior."""
        logits: Tensor = self.head(self.hidden(x))
        return logits

    def forward(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Loss of a batch, scalar; sample weights apply to the classifier's loss only."""
        views = self.hidden(x.repeat(2, 1))
        embeddings = self.projection(torch.cat([views, self.head.weight]))
        nats = self.classify(self.head(views[: len(x)]), target, weight)
        pairs = embeddings[: len(views)].reshape(2, len(x), -1).transpose(0, 1)
        contrast = self.contrast(pairs, embeddings[len(views) :], target)
        loss: Tensor = self.classifier_weight * nats + self.contrast_weight * contrast
        return loss


def train_contrast(
    x: Tensor,
    target: Tensor,
    weight: Tensor,
    prior: ClassPrior,
    seed: int,
    scale: Tensor | None = None,
    *,
    epochs: int = 20,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.01,
    **settings: Any,
) -> ContrastNetwork:
    """Trains a ContrastNetwork with AdamW and one cycle of the learning rate.

    Args:
        x: (samples, num_features).
        target: (samples,), class index.
        weight: (samples,), above 0.
        prior: the class prior of the training set.
        seed: seeds the initial weights, the order of samples and dropout.
        scale: (num_features,), divisor of each feature; None: 1.
        epochs: number of passes over the training set.
        batch_size: samples per step, each in two views.
        learning_rate: peak learning rate.
        weight_decay: weight decay of all parameters.
        **settings: keyword arguments of ContrastNetwork.

    Returns: the network, in eval mode.
    """
    check_range("epochs of bcl", epochs, least=1, whole=True)
    check_range("batch_size of bcl", batch_size, least=1, whole=True)
    mean = x.mean(0)
    scale = torch.ones_like(mean) if scale is None else scale
    spread = ((x - mean) / scale).square().mean().sqrt()
    scale = scale * torch.where(spread > 0, spread, 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: ContrastNetwork = ContrastNetwork(mean, scale, prior, **settings).to(x.dtype)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        steps = epochs * -(-len(x) // batch_size)
        rising = max(0.1, 2 / (steps + 1))  # one step or more
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, learning_rate, total_steps=steps + 1, pct_start=rising
        )
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(x)), batch_size):
                loss = network(x[rows], target[rows], weight[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    network.epochs = epochs
    return network.eval()

"""GML's head on fixed features, as the head of a model that is saved and loaded."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.losses import class_scores
from longtail.models import ImageClassifier
from longtail.probe import MixtureHead


def name_of_head(model: ImageClassifier) -> str:
    """The name of a model's head, as in its card."""
    mixture = isinstance(model.head, MixtureClassifier)
    return MixtureClassifier.name if mixture else model.head_name


class MixtureClassifier(nn.Module):
    """GML's head on fixed features: class scores of stored samples plus a linear head.

    The logits are those of `longtail.probe.MixtureHead`; they express the uniform prior.

    Args:
        num_features: width of the features, D.
        num_classes: number of classes, C.
        keys: number of stored samples.
        width: width of their embeddings.
    """

    name = "mixture"
    mean: Tensor
    projection: Tensor
    keys: Tensor
    labels: Tensor
    temperature: Tensor

    def __init__(self, num_features: int, num_classes: int, keys: int, width: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.linear = nn.Linear(num_features, num_classes).requires_grad_(False)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("projection", torch.zeros(width, num_features))
        self.register_buffer("keys", torch.zeros(keys, width))
        self.register_buffer("labels", torch.zeros(keys, dtype=torch.int64))
        self.register_buffer("temperature", torch.ones(()))

    @classmethod
    def of(cls, head: MixtureHead) -> "MixtureClassifier":
        """The fitted head as a module."""
        mixture, (classes, features) = head.mixture, head.linear.weight.shape
        made = cls(features, classes, *mixture.keys.shape)
        made.load_state_dict(
            {
                "linear.weight": head.linear.weight,
                "linear.bias": head.linear.bias,
                "mean": mixture.mean,
                "projection": mixture.projection / mixture.scale,
                "keys": mixture.keys,
                "labels": mixture.labels,
                "temperature": torch.tensor(mixture.temperature),
            }
        )
        return made

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, D)."""
        features = features.to(self.mean.dtype)
        embeddings = F.normalize((features - self.mean) @ self.projection.T, dim=1)
        scores = class_scores(
            embeddings, self.keys, self.labels, self.num_classes, self.temperature
        )
        logits: Tensor = scores + self.linear(features)
        return logits

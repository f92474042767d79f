"""Dense backbones on timm's encoders, with one of two decoders."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.models.timm_backbone import create_timm
from longtail.segmentation.model import DenseBackbone

LOW_WIDTH = 48  # channels that DeepLabV3+ keeps of the map at a quarter
RATES = (6, 12, 18)  # dilations at 1/16 of the size


def _conv(width_in: int, width: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; a large kernel is depthwise separable, as in DeepLabV3+."""
    layers: list[nn.Module] = []
    if kernel > 1:
        pad = dilation * (kernel // 2)
        layers += [
            nn.Conv2d(width_in, width_in, kernel, 1, pad, dilation, groups=width_in, bias=False),
            nn.BatchNorm2d(width_in),
            nn.ReLU(inplace=True),
        ]
    layers += [
        nn.Conv2d(width_in, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers)


def _like(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, size=other.shape[2:], mode="bilinear")


class AtrousDecoder(nn.Module):
    """DeepLabV3+: atrous pyramid on the last map, joined with the map at a quarter of the size.

    Chen et al., Encoder-Decoder with Atrous Separable Convolution, ECCV 2018, arXiv 1802.02611.
    Differences from the paper: the rates shrink if the last map is coarser than 1/16; the mean of
    the map, one number per channel, has no batch norm, so that a batch of one can be trained on.

    Args:
        widths: channels of the encoder's maps.
        strides: by how much each is smaller than the image.
    """

    num_features = 256  # channels of the result

    def __init__(self, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        num_features = self.num_features
        self.fine = list(strides).index(4)
        last = widths[-1]
        rates = [max(1, rate * 16 // strides[-1]) for rate in RATES]
        self.branches = nn.ModuleList(
            [_conv(last, num_features), *(_conv(last, num_features, 3, rate) for rate in rates)]
        )
        self.mean = nn.Conv2d(last, num_features, 1)
        self.join = _conv(5 * num_features, num_features)
        self.low = _conv(widths[self.fine], LOW_WIDTH)
        self.refine = nn.Sequential(
            _conv(num_features + LOW_WIDTH, num_features, 3), _conv(num_features, num_features, 3)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Features (B, D, H / 4, W / 4) of maps (B, width, h, w), finest first."""
        last = maps[-1]
        mean = F.relu(self.mean(last.mean((2, 3), keepdim=True))).expand(-1, -1, *last.shape[2:])
        joined = self.join(torch.cat([*(branch(last) for branch in self.branches), mean], 1))
        low = self.low(maps[self.fine])
        refined: Tensor = self.refine(torch.cat([_like(joined, low), low], 1))
        return refined


class PyramidDecoder(nn.Module):
    """A light feature pyramid: each map is narrowed, added to the next finer one, then smoothed.

    Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017, arXiv 1612.03144.
    Differences from the paper: only the finest map is smoothed and used.

    Args:
        widths: channels of the encoder's maps.
        strides: by how much each is smaller than the image.
    """

    num_features = 128  # channels of the result

    def __init__(self, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        num_features = self.num_features
        self.fine = list(strides).index(4)
        self.narrow = nn.ModuleList(_conv(width, num_features) for width in widths[self.fine :])
        self.smooth = _conv(num_features, num_features, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Features (B, D, H / 4, W / 4) of maps (B, width, h, w), finest first."""
        pairs = zip(self.narrow, maps[self.fine :], strict=True)
        *finer, x = (narrow(values) for narrow, values in pairs)
        for values in reversed(finer):
            x = values + _like(x, values)
        smoothed: Tensor = self.smooth(x)
        return smoothed


DECODERS: dict[str, type[AtrousDecoder] | type[PyramidDecoder]] = {
    "atrous": AtrousDecoder,
    "pyramid": PyramidDecoder,
}


class TimmDense(DenseBackbone):
    """A timm encoder with feature maps at several sizes, and a decoder.

    Args:
        name: a timm model name.
        decoder: `atrous` (DeepLabV3+) or `pyramid` (a light feature pyramid).
        pretrained: load the weights that timm names for the encoder.

    Raises:
        ValueError: for an unknown decoder or model, when timm is not installed,
            the model has no map at a quarter of the size, or the weights are not available.
    """

    def __init__(self, name: str, decoder: str = "atrous", pretrained: bool = False) -> None:
        if decoder not in DECODERS:
            raise InputError(f"decoder must be one of {sorted(DECODERS)}, got {decoder!r}")
        encoder = _create(name, pretrained, decoder)
        widths, strides = encoder.feature_info.channels(), encoder.feature_info.reduction()
        if 4 not in strides:
            raise InputError(
                f"backbone {name!r} must have a feature map at a quarter of the image's size for "
                f"segmentation, it has maps at 1/{', 1/'.join(map(str, strides))}"
            )
        made = DECODERS[decoder](widths, strides)
        config: dict[str, Any] = encoder.pretrained_cfg
        super().__init__(made.num_features, config["mean"], config["std"])
        self.encoder, self.decoder = encoder, made
        self.channels_last_maps = getattr(encoder, "output_fmt", None) == "NHWC"

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D, H / 4, W / 4) of normalised images (B, 3, H, W)."""
        maps: list[Tensor] = self.encoder(images)
        if self.channels_last_maps:
            maps = [values.permute(0, 3, 1, 2) for values in maps]
        features: Tensor = self.decoder(maps)
        return features


def _create(name: str, pretrained: bool, decoder: str) -> Any:
    """The encoder; for the atrous decoder with its last map at 1/16, if the model supports it."""
    if decoder == "atrous":
        try:
            return create_timm(name, pretrained, features_only=True, output_stride=16)
        except (TypeError, NotImplementedError):
            pass  # transformers have no strides to trade for dilation
    try:
        return create_timm(name, pretrained, features_only=True)
    except (RuntimeError, AttributeError) as error:
        raise InputError(f"backbone {name!r} of timm has no feature maps: {error}") from error

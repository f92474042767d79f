"""Networks for pixels on timm's encoders."""

from typing import Any

from torch import Tensor

from longtail.errors import InputError
from longtail.models.decoders import AtrousDecoder, PyramidDecoder
from longtail.models.dense import DenseBackbone
from longtail.models.timm_backbone import create_timm

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
        ValueError: when nobody knows the decoder, timm is not installed or does not know the name,
            the model has no map at a quarter of the size, or the weights cannot be had.
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
        self.channels_last_maps = str(getattr(encoder, "output_fmt", None)) in (
            "NHWC",
            "Format.NHWC",
        )

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D, H / 4, W / 4) of normalised images (B, 3, H, W)."""
        maps: list[Tensor] = self.encoder(images)
        if self.channels_last_maps:
            maps = [values.permute(0, 3, 1, 2) for values in maps]
        features: Tensor = self.decoder(maps)
        return features


def _create(name: str, pretrained: bool, decoder: str) -> Any:
    """The encoder; for the atrous decoder with its last map at 1/16 where the model can do that."""
    if decoder == "atrous":
        try:
            return create_timm(name, pretrained, features_only=True, output_stride=16)
        except (TypeError, NotImplementedError):
            pass  # transformers have no strides to trade for dilation
    try:
        return create_timm(name, pretrained, features_only=True)
    except (RuntimeError, AttributeError) as error:
        raise InputError(f"backbone {name!r} of timm has no feature maps: {error}") from error

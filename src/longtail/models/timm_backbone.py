"""Backbones from timm, by name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from longtail.errors import InputError
from longtail.models.backbone import Backbone, Encoder


class TimmBackbone(Backbone):
    """A timm model without its classifier, with the normalisation it was trained with.

    Args:
        name: a timm model name, such as `resnet50` or `vit_base_patch16_224`.
        pretrained: load the weights that timm names for it.

    Raises:
        ValueError: when timm is not installed, the name is unknown, or the weights are not
            available.
    """

    def __init__(self, name: str, pretrained: bool = False) -> None:
        model = create_timm(name, pretrained, num_classes=0)
        config: dict[str, Any] = model.pretrained_cfg
        # The output width without the classifier, since some networks widen their features before
        # it.
        width = getattr(model, "head_hidden_size", model.num_features)
        super().__init__(width, config["mean"], config["std"])
        self.model = model
        self.image_size = config["input_size"][-1]

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images (B, 3, H, W)."""
        features: Tensor = self.model(images)
        return features


@torch.no_grad()
def check_image_size(encoder: Encoder, name: str, size: Sequence[int], setting: str) -> None:
    """Rejects an encoder that does not take images of this size, such as many transformers.

    Args:
        encoder: the encoder.
        name: its name, for the message.
        size: height and width of an image.
        setting: the setting that changes the size, for the message.

    Raises:
        InputError: names the encoder, the size and the setting.
    """
    image = torch.zeros(1, 3, *size, dtype=torch.uint8)
    state = {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}
    encoder.eval()
    try:  # first with the shapes alone, which takes no time
        functional_call(
            encoder, {key: value.to("meta") for key, value in state.items()}, image.to("meta")
        )
    except Exception:  # some models need values
        try:
            encoder(image)
        except Exception as error:  # whatever the model raises
            raise InputError(
                f"backbone {name} does not accept images of {size[0]} x {size[1]} pixels "
                f"({error}): set {setting}, or choose another backbone"
            ) from error
    encoder.train()


def is_timm_model(name: str) -> bool:
    """Whether timm is installed and has a model of this name."""
    try:
        import timm
    except ImportError:
        return False
    return bool(timm.is_model(name))


def create_timm(name: str, pretrained: bool, **options: Any) -> Any:
    """A timm model.

    Args:
        name: a timm model name.
        pretrained: load the weights that timm names for it.
        **options: further arguments of `timm.create_model`.

    Raises:
        ValueError: when timm is not installed, the name is unknown, or the weights are not
            available.
        TypeError, NotImplementedError: for an option that the model does not have.
    """
    try:
        import timm
    except ImportError:
        raise InputError(
            f"backbone {name!r} is not one of longtail's own and timm is not installed: "
            "pip install 'longtail[timm]'"
        ) from None
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:8])
        raise InputError(
            f"backbone {name!r} is neither one of longtail's own nor one of timm's"
            + (f"; similar names: {near}" if near else "; `longtail list` shows longtail's own")
        )
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, NotImplementedError):  # an option that this model does not have
        raise
    except Exception as error:  # whatever the hub's client raises: no network, no such weights
        if not pretrained:
            raise
        raise InputError(
            f"the pretrained weights of {name!r} cannot be loaded: {str(error).rstrip('.')}. "
            "They come from timm's hub and need a network or a filled cache. The weights of "
            "efficientnet_lite0 are installed with longtail: --backbone efficientnet_lite0. "
            "--pretrained false trains from random weights"
        ) from error

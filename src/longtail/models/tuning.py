"""The trainable part of a pretrained backbone: everything, nothing, its norms, or LoRA."""

from typing import Literal

from torch import nn

from longtail.errors import InputError
from longtail.models.backbone import Backbone

Tuning = Literal["all", "head", "norm", "lora"]
# Attention and feed-forward layers of timm's transformers; not the patch embedding.
TRANSFORMER_LAYERS = r".*\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def tune_backbone(backbone: Backbone, tuning: Tuning, rank: int = 8) -> None:
    """Freezes a backbone except for the parameters to train, in place.

    For rare classes, light tuning of a foundation model is better than full fine-tuning: Shi et
    al., Long-Tail Learning with Foundation Model: Heavy Fine-Tuning Hurts, ICML 2024, arXiv
    2309.10019; they use it with logit adjustment and a cosine head. A backbone that is not fully
    trained stays in evaluation mode, so the running statistics of a batch norm keep their
    pretrained values.

    Args:
        backbone: a pretrained backbone.
        tuning: `all` changes nothing; `head` freezes everything; `norm` trains weights and biases
            of the normalisation layers; `lora` adds trainable low-rank matrices to the linear
            layers of a transformer's blocks (Hu et al., LoRA, ICLR 2022, arXiv 2106.09685), with
            the scale alpha / rank = 1.
        rank: rank of LoRA's matrices.

    Raises:
        ValueError: when the backbone has no such layers, or `peft`, which LoRA needs, is not
            installed.

    Examples:
        >>> from longtail.models import smallnet
        >>> backbone = smallnet()
        >>> tune_backbone(backbone, "norm")
        >>> sum(p.numel() for p in backbone.parameters() if p.requires_grad)
        384
    """
    if tuning == "all":
        return
    backbone.requires_grad_(False)
    backbone.frozen = True
    if tuning == "norm":
        norms = [module for module in backbone.modules() if isinstance(module, NORMS)]
        if not norms:
            raise InputError("tune norm needs a backbone with normalisation layers, it has none")
        for norm in norms:
            norm.requires_grad_(True)
    elif tuning == "lora":
        _add_lora(backbone, rank)


def merge_lora(backbone: Backbone) -> None:
    """Merges LoRA's matrices into the weights, in place; does nothing if there are none.

    The backbone gives the same features as before, and is an ordinary one again.
    """
    if not any("lora_" in name for name, _ in backbone.named_parameters()):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(backbone.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(backbone.get_submodule(parent), attribute, module.get_base_layer())


def _add_lora(backbone: Backbone, rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError("tune lora needs peft: pip install 'longtail[peft]'") from None
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TRANSFORMER_LAYERS)
    try:
        inject_adapter_in_model(config, backbone)
    except ValueError as error:  # it found no layer
        raise InputError(
            "tune lora needs a transformer of timm (vit, deit, swin, ...), whose blocks have "
            f"layers attn.qkv and mlp.fc1; {type(backbone).__name__} has none"
        ) from error

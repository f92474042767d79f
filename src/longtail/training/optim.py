"""Optimizer, learning-rate schedule, and the average of the trained weights."""

import math
import re
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW

from longtail.methods import Method
from longtail.models import Encoder
from longtail.training.config import Config

BLOCK = re.compile(r"(?:^|\.)\d+\.")  # index of a block in the name of a parameter


def make_optimizer(method: Method, config: Config) -> SGD | AdamW:
    """The optimizer for the parameters that the method trains; see `Config`."""
    bare = {id(p) for p in method.no_weight_decay()}
    # Not the one of `method.model`, which may be an average of the trained network.
    backbones = [module for module in method.modules() if isinstance(module, Encoder)]
    slow = dict[nn.Parameter, float]()
    if config.backbone_lr != 1 or config.layer_decay != 1:
        for backbone in backbones:
            slow |= backbone_factors(backbone, config)
    trained = [p for p in method.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for factor in dict.fromkeys([None, *slow.values()]):
        alike = [p for p in trained if slow.get(p) == factor]
        slower = {} if factor is None else {"lr_factor": factor}
        groups += [
            {"params": [p for p in alike if id(p) not in bare], **slower},
            {"params": [p for p in alike if id(p) in bare], "weight_decay": 0.0, **slower},
        ]
    groups = [group for group in groups if group["params"]]
    shared: dict[str, Any] = {
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "fused": all(p.device.type in ("cpu", "cuda") for p in trained),
    }
    if config.optimizer == "adamw":
        return AdamW(groups, **shared)
    return SGD(groups, momentum=config.momentum, nesterov=config.nesterov, **shared)


def backbone_factors(backbone: nn.Module, config: Config) -> dict[nn.Parameter, float]:
    """Factor on the learning rate of each parameter of a backbone.

    `layer_decay` (Bao et al., BEiT, ICLR 2022, arXiv 2106.08254) multiplies it from each block to
    the one below. Blocks are the numbered modules (`blocks.3`, `layer2.0`) in the order of their
    parameters; modules before, between or after them are blocks as well.

    Args:
        backbone: the backbone.
        config: `backbone_lr` and `layer_decay`.
    """
    depth: dict[nn.Parameter, int] = {}
    last, blocks = None, 0
    for name, parameter in backbone.named_parameters():
        found = BLOCK.search(name)
        block = name[: found.end()] if found else ""
        blocks += block != last
        last = block
        depth[parameter] = blocks
    return {
        parameter: config.backbone_lr * config.layer_decay ** (blocks - index)
        for parameter, index in depth.items()
    }


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Makes a zero momentum for every weight, on its device and in its dtype.

    Torch does so in the first step, but a fused optimizer then needs all gradients to be finite.
    """
    for group in optimizer.param_groups:
        for p in group["params"] if group.get("momentum") else []:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)


def learning_rate(config: Config, epoch: float, steps: int | None = None) -> float:
    """Learning rate after `epoch` epochs, fractions included.

    Args:
        config: the settings.
        epoch: epochs that are done.
        steps: steps per epoch, to leave out a warm-up of less than a step, whose rate is 0.

    Examples:
        >>> from longtail.data import DataConfig
        >>> config = Config(DataConfig("digits-lt"), {"name": "ce"}, epochs=200, lr=0.1)
        >>> [round(learning_rate(config, e), 6) for e in (1, 5, 159, 160, 180)]
        [0.02, 0.1, 0.1, 0.01, 0.001]
    """
    share = epoch / config.epochs
    peak = config.lr * (config.batch_size / config.lr_batch if config.lr_batch else 1)
    whole = steps is None or config.warmup * config.epochs * steps >= 1
    if share < config.warmup and whole:
        rise = peak * share / config.warmup
        return config.warmup_start * peak + (1 - config.warmup_start) * rise
    if config.schedule == "constant":
        return peak
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * share))
    return peak * 0.1 ** sum(share >= m for m in config.milestones)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the rate of every parameter group, times its `lr_factor` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)


class AverageWeights:
    """Exponential moving average of the weights of a method's model, the only ones that are kept.

    Of all of them, since those that are not trained may follow from trained ones (the head of LWS).

    The decay rises with the steps, (1 + t) / (10 + t), up to its value, so that a short run does
    not average over its first steps.

    Args:
        model: the model.
        decay: decay per step; 0: no average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._weights = dict(model.named_parameters(prefix="model")) if decay else {}
        self._average = {name: p.detach().clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Adds the weights after a step to the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, average in self._average.items():
            average.lerp_(self._weights[name], 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Replaces the weights by their average."""
        for name, average in self._average.items():
            self._weights[name].copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """Steps and average, for a checkpoint; names are those of the method's state."""
        return {"steps": self.steps, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores steps and average.

        Raises:
            KeyError: when it has no average of one of the weights.
        """
        self.steps = state["steps"]
        for name, average in self._average.items():
            average.copy_(state["average"][name])

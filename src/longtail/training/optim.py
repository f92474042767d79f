"""Optimiser and learning-rate schedule."""

import math
from typing import Any

import torch
from torch.optim import SGD

from longtail.methods import Method
from longtail.models import Encoder
from longtail.training.config import Config


def make_optimizer(method: Method, config: Config) -> SGD:
    """Stochastic gradient descent over what the method trains; see `Config`."""
    bare = {id(p) for p in method.no_weight_decay()}
    # Not that of `method.model`, which may be an average of the network that is trained.
    backbones = [module for module in method.modules() if isinstance(module, Encoder)]
    slow = {p for b in backbones for p in b.parameters()} if config.backbone_lr != 1 else set()
    trained = [p for p in method.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if id(p) not in bare and p not in slow]},
        {"params": [p for p in trained if id(p) in bare], "weight_decay": 0.0},
        {"params": [p for p in trained if p in slow], "lr_factor": config.backbone_lr},
    ]
    return SGD(
        [group for group in groups if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=all(p.device.type in ("cpu", "cuda") for p in trained),
    )


def start_momentum(optimizer: SGD) -> None:
    """Makes the momentum of every weight, zero, beside it and in its type.

    Torch does so in the first step; fused, it then needs all gradients, and finite ones.
    """
    for group in optimizer.param_groups:
        for p in group["params"] if group["momentum"] else []:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)


def learning_rate(config: Config, epoch: float) -> float:
    """Learning rate after `epoch` epochs, fractions included.

    Example:
        >>> from longtail.data import DataConfig
        >>> config = Config(DataConfig("digits-lt"), {"name": "ce"}, epochs=200, lr=0.1)
        >>> [round(learning_rate(config, e), 6) for e in (1, 5, 159, 160, 180)]
        [0.02, 0.1, 0.1, 0.01, 0.001]
    """
    share = epoch / config.epochs
    peak = config.lr * (config.batch_size / config.lr_batch if config.lr_batch else 1)
    if share < config.warmup:
        rise = peak * share / config.warmup
        return config.warmup_start * peak + (1 - config.warmup_start) * rise
    if config.schedule == "constant":
        return peak
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * share))
    return peak * 0.1 ** sum(share >= m for m in config.milestones)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the rate of every parameter group; one with an `lr_factor` has that share of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)

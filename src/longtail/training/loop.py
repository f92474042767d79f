"""The training loop, on Lightning Fabric: one screen, nothing hidden."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from longtail.augment import View, make_views
from longtail.data import Batch, Loader
from longtail.methods import Method
from longtail.training.config import Config
from longtail.training.optim import learning_rate, make_optimizer, set_learning_rate
from longtail.training.progress import Progress
from longtail.training.run import Run

if TYPE_CHECKING:  # it takes seconds to import, and only a training needs it
    from lightning_fabric import Fabric

CHECK_EVERY = 20  # steps between looks at the loss: each one makes a GPU's host wait


def fit(
    fabric: "Fabric",
    method: Method,
    loader: Loader,
    views: Sequence[View],
    config: Config,
    run: Run,
) -> None:
    """Trains a method from the run's last checkpoint, or from the start, to the end.

    All randomness of an epoch follows from the seed and the epoch's number, so that a run that was
    killed goes on as if nothing had happened.

    Raises:
        FloatingPointError: when the loss is no longer finite; it names epoch, step and checkpoint.
    """
    optimizer = make_optimizer(method, config)
    state = run.checkpoints.load_last(fabric.device)
    start = 0
    if state is not None:
        if state["name"] != config.method["name"]:
            raise ValueError(
                f"the checkpoint in {run.folder} is of method {state['name']!r}, "
                f"the run's is {config.method['name']!r}"
            )
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["epoch"]
    model, wrapped = fabric.setup(method, optimizer)
    method.train()
    generator = torch.Generator(fabric.device)
    steps = len(loader)
    with Progress(run.folder.as_posix(), config.epochs, steps, start) as progress:
        for epoch in range(start, config.epochs):
            began = time.perf_counter()
            seed_epoch(generator, config.seed, epoch)
            method.set_progress(epoch / config.epochs)
            sums: dict[str, Tensor] = {}
            images = 0
            for step, batch in enumerate(loader.epoch(epoch)):
                rate = learning_rate(config, epoch + step / steps)
                set_learning_rate(optimizer, rate)
                parts = train_step(fabric, model, wrapped, batch, views, generator)
                images += len(batch.target)
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0) + value.detach()
                if step % CHECK_EVERY == 0 or step == steps - 1:
                    check_finite(sums["loss"], epoch, step, run)
                    progress.step(step + 1, float(parts["loss"].detach()), rate)
            seconds = time.perf_counter() - began
            record = {name: float(value) / steps for name, value in sums.items()}
            record |= {"lr": rate, "seconds": seconds, "images_per_second": images / seconds}
            run.log_epoch({"epoch": epoch, **record})
            progress.epoch(epoch, record)
            if (epoch + 1) % config.checkpoint_every == 0 or epoch + 1 == config.epochs:
                run.checkpoints.save(
                    {
                        "name": config.method["name"],
                        "epoch": epoch + 1,
                        "method": method.state_dict(),
                        "optimizer": optimizer.state_dict(),
                    },
                    epoch + 1,
                )


def train_step(
    fabric: "Fabric",
    model: Any,
    optimizer: Any,
    batch: Batch,
    views: Sequence[View],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """One step: views, loss, gradients, weights, and what the method does after it.

    Args:
        fabric: of the run.
        model: the method, as `fabric.setup` wraps it.
        optimizer: likewise.
        batch: images, targets and indices, on the device.
        views: of every image, as many as the method needs.
        generator: of the views, on the device.

    Returns: what the method's `forward` returned.
    """
    if batch.images.ndim == 4:
        images = make_views(batch.images, views, generator)
    else:  # (V, B, 3, H, W): the views were cropped where the files were read
        parts = zip(views, batch.images, strict=True)
        images = torch.stack([view(part, generator) for view, part in parts])
    optimizer.zero_grad()
    losses: dict[str, Tensor] = model(images, batch.target, batch.index)
    fabric.backward(losses["loss"])
    optimizer.step()
    model.after_step()
    return losses


def seed_epoch(generator: torch.Generator, seed: int, epoch: int) -> None:
    """Seeds the views' generator and the global one (dropout) for one epoch."""
    mixed = torch.randint(
        2**62, (2,), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    )
    generator.manual_seed(int(mixed[0]))
    torch.manual_seed(int(mixed[1]))


def check_finite(loss: Tensor, epoch: int, step: int, run: Run) -> None:
    """Stops a training whose loss is no longer a number."""
    if not torch.isfinite(loss):
        files = run.checkpoints.files()
        last = f"the last checkpoint is {files[-1]}" if files else "there is no checkpoint yet"
        raise FloatingPointError(
            f"the loss is {float(loss)} at or before step {step} of epoch {epoch}; {last}. "
            "A smaller lr or --precision 32-true often helps"
        )


@torch.no_grad()
def predict_logits(model: nn.Module, loader: Loader) -> dict[str, Tensor]:
    """Raw logits of every image of a loader, in float32, in the loader's order.

    Returns: `logits` (N, C), `labels` (N,) and `index` (N,), on the CPU.
    """
    model.eval()
    rows = [
        (model(batch.images).float().cpu(), batch.target.cpu(), batch.index.cpu())
        for batch in loader.epoch(0)
    ]
    logits, labels, index = (torch.cat(column) for column in zip(*rows, strict=True))
    return {"logits": logits, "labels": labels, "index": index}

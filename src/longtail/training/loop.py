"""The training loop, on Lightning Fabric: one screen, nothing hidden."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from longtail.augment import CutMix, Mixup, View, make_views
from longtail.data import Batch, Loader, UnreadableImagesError
from longtail.data.loaders import Batches, mix_seed
from longtail.errors import InputError
from longtail.methods import Method, Pairs
from longtail.training.config import Config
from longtail.training.faults import Watch
from longtail.training.loggers import epoch_logger
from longtail.training.optim import learning_rate, make_optimizer, set_learning_rate, start_momentum
from longtail.training.processes import mean_of, on_first, share_batch_norm
from longtail.training.progress import Progress
from longtail.training.run import Run

if TYPE_CHECKING:  # it takes seconds to import, and only a training needs it
    from lightning_fabric import Fabric

MIXES: dict[str, type[Mixup | CutMix]] = {"mixup": Mixup, "cutmix": CutMix}
LOOK_EVERY = 20  # steps between looks at the loss: each one makes a GPU's host wait


@dataclass
class Place:
    """How far a training is: whole epochs, and what the one that has begun has given so far."""

    epoch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)


def fit(
    fabric: "Fabric",
    method: Method,
    loader: Batches,
    views: Sequence[View],
    config: Config,
    run: Run,
) -> None:
    """Trains a method from the run's last checkpoint, or from the start, to the end.

    All randomness of a step follows from the seed, the step's number and the process's, so that a
    run that was killed goes on as if nothing had happened.

    Raises:
        FloatingPointError: when the loss is no longer finite; see `Watch.look`.
        OSError: when the log or a checkpoint cannot be written.
        UnreadableImagesError: at the end of an epoch, whose state a single process has saved.
        SystemExit: after SIGTERM, when the state is saved; KeyboardInterrupt after SIGINT.
    """
    share_batch_norm(method, fabric)
    optimizer = make_optimizer(method, config)
    model, wrapped = fabric.setup(method, optimizer)
    start_momentum(optimizer)
    at = restore(fabric, method, optimizer, config, run)
    method.train()
    generator = torch.Generator()
    mix = None if config.mix == "none" else MIXES[config.mix](config.mix_alpha)
    steps = len(loader)
    title, shown = run.folder.as_posix(), fabric.is_global_zero
    with (
        Progress(title, config.epochs, steps, at.epoch, shown) as progress,
        Watch(fabric, run) as watch,
        epoch_logger(config.logger if shown else "none", run, at.epoch) as log,
    ):
        leave = False
        while at.epoch < config.epochs and not leave:
            began = time.perf_counter() - at.seconds
            method.set_progress(at.epoch / config.epochs)
            broken: UnreadableImagesError | None = None
            try:
                for batch in loader.epoch(at.epoch, at.step):
                    seed_step(generator, config.seed, at.epoch, at.step, fabric.global_rank)
                    rate = learning_rate(config, at.epoch + at.step / steps)
                    set_learning_rate(optimizer, rate)
                    parts = train_step(fabric, model, wrapped, batch, views, generator, mix)
                    for name, value in parts.items():
                        at.sums[name] = at.sums.get(name, 0) + value.detach()
                    watch.see(parts["loss"], batch.index, at.step)
                    at.images += len(batch.target) * fabric.world_size
                    at.step += 1
                    if at.step % LOOK_EVERY == 0 or at.step == steps:
                        leave = watch.look(at.epoch)
                        progress.step(at.step, float(parts["loss"].detach()))
                        if leave:
                            break
            except UnreadableImagesError as error:  # after the last batch: others stood in for them
                if fabric.world_size > 1:
                    raise
                broken = error
            at.seconds = time.perf_counter() - began
            at.sums = mean_of(fabric, at.sums)
            if at.step == steps:
                record = {name: float(value) / steps for name, value in at.sums.items()}
                record |= {"lr": rate, "seconds": at.seconds}
                record |= {"images_per_second": at.images / at.seconds}
                on_first(fabric, log, {"epoch": at.epoch, **record})
                progress.epoch(at.epoch, record)
                at = Place(at.epoch + 1)
            whole = at.epoch % config.checkpoint_every == 0 or at.epoch == config.epochs
            if whole or leave or broken:
                watch.check_weights(method, at.epoch)
                save(fabric, method, optimizer, config, run, at)
            if broken:
                raise broken
        if leave:
            watch.leave(f"after {at.epoch} epochs and {at.step} steps")


def restore(
    fabric: "Fabric", method: Method, optimizer: torch.optim.Optimizer, config: Config, run: Run
) -> Place:
    """Loads the run's last whole checkpoint, if there is one, on all processes.

    Returns: how far the training was.
    Raises:
        ValueError: when it is of another method.
    """
    state = on_first(fabric, run.checkpoints.load_last)
    if state is None:
        return Place()
    if state["name"] != config.method["name"]:
        raise InputError(
            f"the checkpoint in {run.folder} is of method {state['name']!r}, "
            f"the run's is {config.method['name']!r}"
        )
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    if scale := state.get("precision"):  # of 16-mixed, empty after any other
        fabric.strategy.precision.load_state_dict(scale)
    at = Place(**{name: state[name] for name in asdict(Place()) if name in state})
    at.sums = {name: value.to(fabric.device) for name, value in at.sums.items()}
    return at


def save(
    fabric: "Fabric",
    method: Method,
    optimizer: torch.optim.Optimizer,
    config: Config,
    run: Run,
    at: Place,
) -> None:
    """Lets the first process save all that the others have, too."""

    def write() -> None:
        state = {"method": method.state_dict(), "optimizer": optimizer.state_dict()}
        state["precision"] = fabric.strategy.precision.state_dict()  # the scale of 16-mixed
        run.checkpoints.save({"name": config.method["name"], **asdict(at), **state})

    on_first(fabric, write)


def train_step(
    fabric: "Fabric",
    model: Any,
    optimizer: Any,
    batch: Batch,
    views: Sequence[View],
    generator: torch.Generator,
    mix: Mixup | CutMix | None = None,
) -> dict[str, Tensor]:
    """One step: views, loss, gradients, weights, and what the method does after it.

    Args:
        fabric: of the run.
        model: the method, as `fabric.setup` wraps it.
        optimizer: likewise.
        batch: images, targets and indices, on the device.
        views: of every image, as many as the method needs.
        generator: of the views, on the CPU.
        mix: of the first view, if it is mixed.

    Returns: what the method's `forward` returned.
    """
    if batch.images.ndim == 4:
        images = make_views(batch.images, views, generator)
    else:  # (V, B, 3, H, W): the views were cropped where the files were read
        parts = zip(views, batch.images, strict=True)
        images = torch.stack([view(part, generator) for view, part in parts])
    inputs: tuple[Any, ...] = (images, batch.target, batch.index)
    if mix is not None:
        mixed = mix(images[0], batch.target, generator)
        images[0] = mixed.images
        inputs = (*inputs, Pairs(mixed.other, mixed.weight))
    optimizer.zero_grad()
    losses: dict[str, Tensor] = model(*inputs)
    fabric.backward(losses["loss"])
    optimizer.step()
    model.module.after_step()
    return losses


def seed_step(generator: torch.Generator, seed: int, epoch: int, step: int, rank: int) -> None:
    """Seeds the views' generator and the global one (dropout) for one step of one process."""
    generator.manual_seed(mix_seed(seed, epoch, step, rank, 0))
    torch.manual_seed(mix_seed(seed, epoch, step, rank, 1))


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

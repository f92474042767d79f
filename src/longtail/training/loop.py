"""The training loop, on Lightning Fabric."""

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from longtail.data import Loader, UnreachableError, UnreadableImagesError
from longtail.data.seeds import mix_seed
from longtail.errors import InputError
from longtail.features import keep_freed_memory
from longtail.files import parse_json
from longtail.methods import Method
from longtail.training.batch_norm import share_batch_norm
from longtail.training.config import Config, changed_settings
from longtail.training.distributed import mean_of, on_first
from longtail.training.graphed import Gradients, compute_gradients, gradients_of
from longtail.training.input import TrainingBatch, TrainingLoader
from longtail.training.interrupts import Monitor
from longtail.training.loggers import epoch_logger
from longtail.training.optim import (
    AverageWeights,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    start_momentum,
)
from longtail.training.progress import ProgressBar
from longtail.training.run import RunFolder
from longtail.training.sharpness import SharpnessAware

if TYPE_CHECKING:  # it takes seconds to import, and only training needs it
    from lightning_fabric import Fabric

CHECK_EVERY = 20  # steps between checks of the loss; each makes the host wait for the GPU


@dataclass
class TrainingProgress:
    """Training progress: finished epochs, and the sums of the current epoch."""

    epoch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)


def fit(
    fabric: "Fabric",
    method: Method,
    loader: TrainingLoader,
    config: Config,
    run: RunFolder,
) -> None:
    """Trains a method from the run's last checkpoint, or from the start, to the end.

    All randomness of a step follows from the seed, the step's number and the process's rank, so
    that a killed run continues as if it had not been killed.

    Raises:
        NotFiniteError: when the loss is NaN or infinite; see `Monitor.check`.
        OSError: when the log or a checkpoint cannot be written.
        UnreadableImagesError: at the end of the epoch; with one process the state is saved first.
        UnreachableError: as soon as a server does not answer; the state is saved in the same way.
        SystemExit: after SIGTERM, once the state is saved; KeyboardInterrupt after SIGINT.
    """
    if fabric.device.type == "cpu":
        keep_freed_memory()
    share_batch_norm(method, fabric)
    optimizer = make_optimizer(method, config)
    model, wrapped = fabric.setup(method, optimizer)
    start_momentum(optimizer)
    average = AverageWeights(method.model, config.ema or 0.0)
    at = restore(fabric, method, optimizer, config, run, average)
    method.train()
    gradients = gradients_of(fabric, loader)
    if config.sam:
        gradients = SharpnessAware(gradients, config.sam)
    steps = len(loader)
    title, shown = run.folder.as_posix(), fabric.is_global_zero
    with (
        ProgressBar(title, config.epochs, steps, at.epoch, shown) as progress,
        Monitor(fabric, run) as monitor,
        epoch_logger(config.logger if shown else "none", run, at.epoch) as log,
    ):
        leave = False
        while at.epoch < config.epochs and not leave:
            began = time.perf_counter() - at.seconds
            method.set_progress(at.epoch / config.epochs)
            unreadable: InputError | None = None
            batch: TrainingBatch | None = None
            try:
                for batch in loader.epoch(at.epoch, at.step):
                    seed_step(config.seed, at.epoch, at.step, fabric.global_rank)
                    rate = learning_rate(config, at.epoch + at.step / steps, steps)
                    set_learning_rate(optimizer, rate)
                    losses = train_step(fabric, model, wrapped, batch, gradients)
                    average.update()
                    for name, value in losses.items():
                        at.sums[name] = at.sums.get(name, 0) + value
                    monitor.record(losses["loss"], batch.index, at.step)
                    at.images += len(batch.target) * fabric.world_size
                    at.step += 1
                    asked = monitor.asked and fabric.world_size == 1  # others must leave as well
                    if at.step % CHECK_EVERY == 0 or at.step == steps or asked:
                        leave = monitor.check(at.epoch)
                        progress.step(at.step, float(losses["loss"]))
                        if leave:
                            break
            # Raised after the last batch, since other images were substituted.
            except (UnreadableImagesError, UnreachableError) as error:
                if fabric.world_size > 1:
                    raise
                unreadable = error
            at.seconds = time.perf_counter() - began
            at.sums = mean_of(fabric, at.sums)
            if at.step == steps:
                record = {name: float(value) / steps for name, value in at.sums.items()}
                record |= {"lr": rate, "seconds": at.seconds}
                record |= {"images_per_second": at.images / at.seconds}
                on_first(fabric, log, {"epoch": at.epoch, **record})
                progress.epoch(at.epoch, record)
                at = TrainingProgress(at.epoch + 1)
            whole = at.epoch % config.checkpoint_every == 0 or at.epoch == config.epochs
            if whole or leave or unreadable:
                monitor.check_weights(method, at.epoch)
                if batch is not None:
                    monitor.check_logits(method, batch.views, at.epoch)
                save(fabric, method, optimizer, config, run, at, average)
            if unreadable:
                raise unreadable
        if leave or monitor.check(at.epoch):
            monitor.leave(f"epoch {at.epoch}, step {at.step}")
    average.apply()


def restore(
    fabric: "Fabric",
    method: Method,
    optimizer: torch.optim.Optimizer,
    config: Config,
    run: RunFolder,
    average: AverageWeights,
) -> TrainingProgress:
    """Loads the run's last valid checkpoint, if there is one, on all processes.

    Returns: the training progress.
    Raises:
        InputError: when the checkpoint has other settings, or was written by an older version and
            cannot be read by this one.
    """
    state = on_first(fabric, run.checkpoints.load_last)
    if state is None:
        return TrainingProgress()
    # `config.yaml` may have been changed since; another version may have had other settings.
    known, now = parse_json(str(state.get("settings", "{}"))), config.stored
    for name in run.given_models:  # which are compared by their checksums
        del now[name]
    both = now.keys() & (known if isinstance(known, dict) else {})
    if "data" in both:  # which may have moved: its images are compared with `split.csv`
        known["data"]["source"] = now["data"]["source"]
    if other := changed_settings(*({name: one[name] for name in both} for one in (known, now))):
        raise InputError(
            f"the checkpoint in {run.folder} was trained with other settings: {'; '.join(other)}"
        )
    if state.get("name") != config.method["name"]:
        raise InputError(
            f"the checkpoint in {run.folder} is of method {state.get('name')!r}, "
            f"the run's is {config.method['name']!r}"
        )
    try:
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        if config.ema:
            average.load_state_dict(state["average"])
        if scale := state.get("precision"):  # for 16-mixed; empty for any other precision
            fabric.strategy.precision.load_state_dict(scale)
        names = asdict(TrainingProgress())
        at = TrainingProgress(**{name: state[name] for name in names if name in state})
        at.epoch, at.step, at.images = int(at.epoch), int(at.step), int(at.images)
        at.sums = {name: value.to(fabric.device) for name, value in at.sums.items()}
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the checkpoint in {run.folder}, a run that longtail {run.version} started, "
            f"cannot be loaded: {error}"
        ) from error
    return at


def save(
    fabric: "Fabric",
    method: Method,
    optimizer: torch.optim.Optimizer,
    config: Config,
    run: RunFolder,
    at: TrainingProgress,
    average: AverageWeights,
) -> None:
    """Saves a checkpoint on the first process; the state is the same on all of them."""

    def write() -> None:
        state = {"method": method.state_dict(), "optimizer": optimizer.state_dict()}
        if config.ema:
            state["average"] = average.state_dict()
        state["precision"] = fabric.strategy.precision.state_dict()  # the scale of 16-mixed
        of = {"name": config.method["name"], "settings": json.dumps(config.stored)}
        run.checkpoints.save({**of, **asdict(at), **state})

    on_first(fabric, write)


def train_step(
    fabric: "Fabric",
    model: Any,
    optimizer: Any,
    batch: TrainingBatch,
    gradients: Gradients = compute_gradients,
) -> dict[str, Tensor]:
    """One step: loss, gradients, update of the weights, and the method's own update.

    Args:
        fabric: fabric of the run.
        model: the method, as `fabric.setup` wraps it.
        optimizer: the optimizer, as `fabric.setup` wraps it.
        batch: views, targets and indices, on the device.
        gradients: computes loss and gradients.

    Returns: what the method's `forward` returned, without gradients.
    """
    losses = gradients(fabric, model, optimizer, batch)
    optimizer.step()
    model.module.after_step()
    return losses


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seeds torch's global generator (dropout, sampled pixels) for one step of one process."""
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

"""Several processes: how a run starts them, and what they do for each other."""

import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from longtail.data import Loader
from longtail.errors import InputError, LostProcessError, NotFiniteError
from longtail.memory import gather_keys
from longtail.sharing import started_by_torchrun
from longtail.training.config import Config

if TYPE_CHECKING:  # it takes seconds to import, and only training needs it
    from lightning_fabric import Fabric

STARTED_BY = "LONGTAIL_STARTED_BY"
PATIENCE = 2.0  # seconds within which a broken connection must show
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
AnyConfig = TypeVar("AnyConfig", bound=Config)


def settle_processes(config: AnyConfig, fewest: int) -> AnyConfig:
    """Takes the number of processes from torchrun if it started them, and checks it.

    Args:
        config: the settings.
        fewest: images of the smallest split.

    Raises:
        InputError: when the settings differ from the number that torchrun started, the processes
            cannot share a batch equally, or one would have no image to predict.
    """
    started = started_by_torchrun()
    if started:
        asked = (config.devices, config.nodes)
        if asked not in (started, (1, 1)):
            raise InputError(
                f"devices and nodes must be those of torchrun, {started}, or be left out, "
                f"got {asked}"
            )
        config = replace(config, devices=started[0], nodes=started[1])
    processes = config.devices * config.nodes
    if config.batch_size % processes:
        raise InputError(
            f"batch_size must be a multiple of the {processes} processes, got {config.batch_size}"
        )
    if processes > fewest:
        raise InputError(
            f"devices * nodes must not exceed the {fewest} images of the smallest split, "
            f"got {processes}"
        )
    return config


def launch(config: Config) -> "Fabric":
    """Starts the processes of a run, or joins those that torchrun or SLURM started.

    On one machine without either, this process becomes the first and runs the program again for
    each of the others, up to this line.

    Raises:
        InputError: when the device is not available.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    strategy: Any = "auto"
    if config.devices * config.nodes > 1:
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {
            # Buffers are equal on all processes by construction; sending a queue of 10^5 keys in
            # every step would cost more than the gradients.
            buffers: False,
            # Parameters may be unused, for instance with a weight of 0, without a search in every
            # step.
            "static_graph": True,
            "gradient_as_bucket_view": True,
        }
        strategy = DDPStrategy(**options)
        _end_with_parent()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=best_device() if config.device == "auto" else config.device,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=strategy,
            precision=config.precision,  # type: ignore[arg-type]
        )
    except (RuntimeError, ValueError, ImportError, MisconfigurationException) as error:
        asked = f"device {config.device!r} with precision {config.precision!r}"
        raise InputError(f"{asked} is not available: {error}") from error
    fabric.launch()
    return fabric


def best_device() -> str:
    """The device of `auto`: a GPU if there is one, except Apple's, which have no float64."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of(config: Config) -> torch.device:
    """The device that a run will use.

    Raises:
        InputError: when it is not available.
    """
    name = {"auto": best_device(), "gpu": "cuda"}.get(config.device, config.device)
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter: PyTorch was built without CUDA
        raise InputError(f"device {config.device!r} is not available: {error}") from error


def _end_with_parent() -> None:
    """Makes the processes started by this one end when it ends, for whatever reason.

    Fabric ends the first process when one that it started has ended.
    """
    parent = os.environ.pop(STARTED_BY, None)
    if parent is None:
        os.environ[STARTED_BY] = str(os.getpid())
    elif int(parent) == os.getppid():

        def watch() -> None:
            while os.getppid() == int(parent):
                time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)  # it may be waiting in C++

        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def named_lost_processes(fabric: "Fabric") -> Iterator[None]:
    """Raises a specific error if the processes of a run lose the connection to one of them.

    Gloo then raises a bare RuntimeError, as many bugs do. Separate connections between the
    processes distinguish the two: they break at once if a process has ended.

    Args:
        fabric: fabric of the run.

    Raises:
        LostProcessError: in place of the RuntimeError.
    """
    if fabric.world_size == 1:
        yield
        return
    connections = dist.new_group(backend="gloo")
    try:
        yield
    except LostProcessError:  # of a stage
        raise
    except RuntimeError as error:
        if _intact(connections):
            raise
        raise LostProcessError("another process of this run has ended") from error


def _intact(connections: Any) -> bool:
    """Whether all processes can be reached: receiving from one that has ended fails at once."""
    last = time.monotonic() + PATIENCE
    while time.monotonic() < last:
        for rank in set(range(dist.get_world_size())) - {dist.get_rank()}:
            try:
                dist.irecv(torch.zeros(1), src=rank, group=connections)
            except RuntimeError:
                return False
        time.sleep(0.1)
    return True


def is_first() -> bool:
    """Whether this process is the first of a run: the one that writes and prints."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def on_first(
    fabric: "Fabric",
    action: Callable[Arguments, Result],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Result:
    """Lets the first process act, such as write a file; every process gets its result or error.

    The others wait meanwhile, so that a full disk ends all processes and not only the first.
    """
    if fabric.world_size == 1:
        return action(*args, **kwargs)
    outcome: Any = None
    if fabric.is_global_zero:
        try:
            outcome = action(*args, **kwargs), None
        except (OSError, ValueError, NotFiniteError) as error:
            outcome = None, error
    result, failure = fabric.broadcast(outcome)
    if failure is not None:
        raise failure
    return cast(Result, result)


def mean_of(fabric: "Fabric", values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scalars by name, averaged over the processes."""
    if fabric.world_size == 1 or not values:
        return dict(values)
    means = fabric.all_reduce(torch.stack([v.double() for v in values.values()]), reduce_op="mean")
    return dict(zip(values, means, strict=True))


def rows_of_all(fabric: "Fabric", loader: Loader, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Results of the processes for their shares of an epoch, joined in the epoch's order.

    Args:
        fabric: fabric of the run.
        loader: the loader of this process's share.
        rows: (images of this process, ...) by name, on the CPU.

    Returns: (all images, ...) by name, on the CPU of every process.
    """
    if fabric.world_size == 1:
        return dict(rows)
    here = [value.to(fabric.device) for value in (loader.positions(), *rows.values())]
    positions, *columns = gather_keys(*here, ragged=True)
    order = positions.argsort()
    return {name: column[order].cpu() for name, column in zip(rows, columns, strict=True)}

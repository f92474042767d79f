"""Loggers of the record of an epoch: always `metrics.jsonl`, and TensorBoard or W&B on request."""

import importlib.util
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from longtail.errors import InputError
from longtail.files import write_text
from longtail.training.config import Logger
from longtail.training.run import RunFolder

Record = Mapping[str, float]


@contextmanager
def epoch_logger(logger: Logger, run: RunFolder, epoch: int) -> Iterator[Callable[[Record], None]]:
    """Context that yields a function to log an epoch's record.

    A resumed run continues its curves: what an earlier process logged for `epoch` and later epochs
    is replaced.

    Args:
        logger: `tensorboard` writes to the folder `tensorboard` of the run; `wandb` to Weights &
            Biases, with the settings of its client (`WANDB_MODE=offline` stays offline).
        run: the run, whose `metrics.jsonl` is always written.
        epoch: first epoch to be logged.

    Raises:
        InputError: when the package that the logger needs is not installed.
    """
    check_logger(logger)
    if logger == "none":
        yield run.log_epoch
        return
    show, close = (_tensorboard if logger == "tensorboard" else _wandb)(run, epoch)

    def log(record: Record) -> None:
        run.log_epoch(record)
        show({name: value for name, value in record.items() if name != "epoch"}, record["epoch"])

    try:
        yield log
    finally:
        close()


def check_logger(logger: Logger) -> None:
    """Checks that a logger's package is installed.

    Raises:
        InputError: when it is not.
    """
    if logger != "none" and importlib.util.find_spec(logger) is None:
        raise InputError(f"logger {logger!r} needs its package: pip install 'longtail[{logger}]'")


Show = Callable[[Record, float], object]


def _tensorboard(run: RunFolder, epoch: int) -> tuple[Show, Callable[[], object]]:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(run.folder / "tensorboard"), purge_step=epoch)

    def show(values: Record, step: float) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return show, writer.close


def _wandb(run: RunFolder, epoch: int) -> tuple[Show, Callable[[], object]]:
    import wandb

    known = run.folder / "wandb-id"
    if not known.is_file():  # a resumed run keeps its id
        write_text(known, uuid.uuid4().hex[:8])
    shown: Any = wandb.init(
        project="longtail",
        name=run.folder.as_posix(),
        id=known.read_text(encoding="utf-8"),
        dir=run.folder,
        config=run.config,
        resume="allow",
    )
    # Its own step only increases; a resumed run may step back to its last checkpoint.
    shown.define_metric("*", step_metric="epoch")
    return lambda values, step: shown.log({**values, "epoch": step}), shown.finish

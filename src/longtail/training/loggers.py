"""Where the record of an epoch goes: `metrics.jsonl` always, and a page that others look at."""

import importlib.util
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from longtail.errors import InputError
from longtail.files import write_text
from longtail.training.run import Run

Logger = Literal["none", "tensorboard", "wandb"]
Record = Mapping[str, float]


@contextmanager
def epoch_logger(logger: Logger, run: Run, epoch: int) -> Iterator[Callable[[Record], None]]:
    """Gives what an epoch's record is handed to.

    A run that goes on continues its curves: what an earlier process showed of `epoch` and later
    ones is replaced.

    Args:
        logger: `tensorboard` writes to the folder `tensorboard` of the run; `wandb` to Weights &
            Biases, by the settings of its client (`WANDB_MODE=offline` stays on this machine).
        run: whose `metrics.jsonl` is written in any case.
        epoch: the first that comes.

    Raises:
        ValueError: when the package that the logger needs is not installed.
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
    """Looks whether a logger's package is there.

    Raises:
        ValueError: when it is not installed.
    """
    if logger != "none" and importlib.util.find_spec(logger) is None:
        raise InputError(f"logger {logger!r} needs its package: pip install 'longtail[{logger}]'")


Show = Callable[[Record, float], object]


def _tensorboard(run: Run, epoch: int) -> tuple[Show, Callable[[], object]]:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(run.folder / "tensorboard"), purge_step=epoch)

    def show(values: Record, step: float) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return show, writer.close


def _wandb(run: Run, epoch: int) -> tuple[Show, Callable[[], object]]:
    import wandb

    known = run.folder / "wandb-id"
    if not known.is_file():  # a run that goes on is the same run there, too
        write_text(known, uuid.uuid4().hex[:8])
    shown: Any = wandb.init(
        project="longtail",
        name=run.folder.as_posix(),
        id=known.read_text(encoding="utf-8"),
        dir=run.folder,
        config=run.config,
        resume="allow",
    )
    # Its own step only counts up; a run that goes on may step back to its last checkpoint.
    shown.define_metric("*", step_metric="epoch")
    return lambda values, step: shown.log({**values, "epoch": step}), shown.finish

"""A progress bar on a terminal, one logged line per epoch otherwise."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOGGER = logging.getLogger("longtail")


@contextmanager
def shown_progress(verbose: bool) -> Iterator[None]:
    """Shows or hides the progress of training.

    Args:
        verbose: log at INFO to the program's handlers, or to stderr if it has none; otherwise log
            nothing below WARNING, and show no progress bar.
    """
    level = LOGGER.level
    handlers = [] if LOGGER.hasHandlers() or not verbose else [logging.StreamHandler()]
    LOGGER.setLevel(logging.INFO if verbose else logging.WARNING)
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        for handler in handlers:
            LOGGER.removeHandler(handler)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar on a terminal, if progress is shown.

    Args:
        title: name of the task.
        total: number of steps.

    Yields: a function to call with the number of steps since the last call.
    """
    console = Console(stderr=True)
    shown = LOGGER.isEnabledFor(logging.INFO) and console.is_terminal
    with Progress(console=console, disable=not shown) as progress:
        task = progress.add_task(title, total=total)
        yield lambda steps: progress.advance(task, steps)


class ProgressBar:
    """Shows the progress of training: loss, images per second and time left.

    Args:
        title: name of what is trained.
        epochs: total number of epochs.
        steps: steps per epoch.
        start: epochs that are already done.
        shown: whether this process shows it; only the first does.
    """

    def __init__(
        self, title: str, epochs: int, steps: int, start: int = 0, shown: bool = True
    ) -> None:
        self.console = Console(stderr=True)
        self.shown = shown and LOGGER.isEnabledFor(logging.INFO)
        self.epochs, self.steps, self.done, self.title = epochs, steps, start * steps, title
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} images/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (self.shown and self.console.is_terminal),
        )
        self.task = self.bar.add_task(
            title, total=epochs * steps, completed=self.done, loss=float("nan"), speed=0.0
        )

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def step(self, step: int, loss: float) -> None:
        """Shows the steps done in an epoch, and the loss of the last one."""
        self.bar.update(self.task, completed=self.done + step, loss=loss)

    def epoch(self, epoch: int, record: dict[str, float]) -> None:
        """Shows a finished epoch; `record` is its line of `metrics.jsonl`."""
        self.done = (epoch + 1) * self.steps
        speed = record["images_per_second"]
        self.bar.update(self.task, completed=self.done, loss=record["loss"], speed=speed)
        every = max(1, self.epochs // 20)  # about 20 lines, however many epochs there are
        due = (epoch + 1) % every == 0 or epoch + 1 == self.epochs
        if self.shown and due and not self.console.is_terminal:
            LOGGER.info(
                f"{self.title}: epoch {epoch + 1}/{self.epochs}, loss {record['loss']:.3f}, "
                f"lr {record['lr']:.3g}, {speed:,.0f} images/s, {record['seconds']:.1f} s"
            )

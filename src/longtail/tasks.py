"""The tasks by name, and access to runs of any task.

A task is imported when it is needed: PyTorch takes seconds, and no task depends on another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtail.errors import InputError
from longtail.names import imported, trusted_paths

if TYPE_CHECKING:
    from longtail.training import Config, RunFolder, Task

    AnyTask = Task[Any, Any, Any]

# Import path of each task, and the folder of its methods.
TASKS = {
    "classification": ("longtail.classification.CLASSIFICATION", "methods"),
    "segmentation": ("longtail.segmentation.task.SEGMENTATION", "segmentation/methods"),
}


def check_task(name: str) -> None:
    """Rejects an unknown task.

    Raises:
        InputError: when the name is not that of a task.
    """
    if name not in TASKS:
        raise InputError(f"task must be one of {sorted(TASKS)}, got {name!r}")


def find_task(name: str) -> AnyTask:
    """A task by name.

    Raises:
        InputError: when the name is unknown.
    """
    check_task(name)
    task: AnyTask | None = imported(TASKS[name][0], "task")
    assert task is not None
    return task


def all_tasks() -> Iterator[AnyTask]:
    """All tasks, the default one first."""
    return map(find_task, TASKS)


def task_of_source(source: str) -> AnyTask:
    """The task of a data set given by name; the default task for any other source."""
    tasks = list(all_tasks())
    return next((task for task in tasks if source in task.catalogue("data")), tasks[0])


def train(config: Config, folder: str | Path | None, **options: Any) -> RunFolder:
    """Trains a run of the task that its settings name; see `longtail.training.train_run`."""
    from longtail.training import train_run

    task = find_task(config.task)
    run: RunFolder = train_run(task, config, Path(folder) if folder else None, **options)
    return run


def open_run(run: str | Path | RunFolder, trust: Any = ()) -> RunFolder:
    """Opens a run with the class for its task.

    Args:
        run: run folder.
        trust: as for `longtail.training.RunFolder`, in addition to what a given run trusts.
    """
    from longtail.training import RunFolder
    from longtail.training.run import task_of

    if isinstance(run, RunFolder):
        return type(run)(run.folder, (*run.trust, *trusted_paths(trust))) if trust else run
    opened: RunFolder = find_task(task_of(run)).runs(run, trust)
    return opened


def task_of_run(run: RunFolder) -> AnyTask:
    """The task of a run."""
    return find_task(run.reads)

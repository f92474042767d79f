"""The run folder at the start of training: a new one, or one whose run is resumed."""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from longtail.data.dataset import Split, TrainingData
from longtail.errors import InputError
from longtail.training.checkpoint import Checkpoints
from longtail.training.config import Config, changed_settings
from longtail.training.given_models import check_given, checksums, write_given
from longtail.training.lock import locked_folder
from longtail.training.run import RunFolder
from longtail.training.split_record import FILE, check_split, moved_to, read_split, write_split
from longtail.training.task import AnyRun, Task
from longtail.version import VERSION

RESULTS = ("metrics.json", "model.safetensors")


@contextmanager
def run_folder(folder: Path | None, config: Config) -> Iterator[Path]:
    """The folder of a run, locked against writes by other processes.

    Args:
        folder: the folder; None: a new one under `runs/`, named after data, method and seed.
        config: settings of the run.

    Raises:
        InputError: when another process writes to it, or it is a file.
    """
    with ExitStack() as stack:
        if folder is None:
            folder = _new_folder(config, stack)
        else:
            stack.enter_context(locked_folder(folder))
        yield folder


def _new_folder(config: Config, stack: ExitStack) -> Path:
    """Makes and locks a folder that did not exist: two runs never get the same one."""
    source = re.sub(r"\W+", "-", Path(os.path.abspath(config.data.source)).stem)
    method = config.method["name"].rpartition(".")[2]
    name = source if method == "auto" else f"{source}-{method}"
    base = Path("runs") / f"{name}-seed{config.seed}"
    for number in count(1):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if folder.exists():
            continue
        try:
            stack.enter_context(locked_folder(folder, new=True))
        except FileExistsError:  # another process was faster
            continue
        return folder
    raise AssertionError("unreachable")


def begin_run(
    task: Task[Any, Any, AnyRun],
    folder: Path,
    config: Config,
    dataset: TrainingData[Split],
    *,
    resume: bool,
    accept_replaced: bool = False,
) -> AnyRun:
    """Creates the run folder, or opens it to resume the run with the same settings and data.

    Args:
        task: the task.
        folder: the folder.
        config: settings, without `auto`.
        dataset: the data.
        resume: resume the run in the folder.
        accept_replaced: accept image files that have changed; see `check_split`.

    Raises:
        InputError: when the folder contains a run and `resume` is not set, or its settings or data
            differ; nothing has been written then.
    """
    settings, models = config.stored, checksums(task, config)
    if not (folder / "config.yaml").is_file():
        if check_without_settings(folder, resume):
            check_split(folder, dataset, accept_replaced=accept_replaced)
        write_split(folder, dataset)
        write_given(folder, models)
        return task.runs.create(folder, settings, config.trusted)
    run = task.runs(folder, config.trusted)
    check_resumes(folder, resume)
    before = run.config
    lacking = [name for name in settings if name not in before]
    if lacking and run.version == VERSION:  # an older version had fewer
        raise InputError(
            f"{folder / 'config.yaml'} is truncated or damaged, without {', '.join(lacking)}"
        )
    same = check_given(run, models) | same_source(folder, before, settings)
    if other := changed_settings(before, {**settings, **same}, config.defaults):
        raise InputError(
            f"{folder} cannot be resumed with other settings: {'; '.join(other)}{_written_by(run)}"
        )
    ended = run.finished
    replaced = resume_split(folder, dataset, before, settings, accept_replaced, ended=ended)
    if ended:
        return run
    if "data" in same:
        run.note_source(settings["data"]["source"])
    run.mend_history()
    run.note_resumption(settings, replaced)
    return run


def check_resumes(folder: Path, resume: bool) -> None:
    """Rejects a folder that contains a run, unless it is resumed.

    Raises:
        InputError: when `resume` is not set.
    """
    if not resume:
        raise InputError(
            f"{folder} already holds a run: resume it with --resume, or choose another --out"
        )


def check_without_settings(folder: Path, resume: bool) -> bool:
    """Rejects a folder with results but no settings, or with checkpoints without --resume.

    Returns: whether it has checkpoints.
    Raises:
        InputError: names what is in the folder.
    """
    found = [name for name in RESULTS if (folder / name).is_file()]
    if found:
        raise InputError(
            f"{folder} has {' and '.join(found)} but no config.yaml with the settings of that run: "
            "choose another --out"
        )
    if not Checkpoints(folder / "checkpoints").files():
        return False
    missing = f"{folder} has checkpoints but no config.yaml with the settings of that run"
    if not resume:
        raise InputError(f"{missing}: --resume continues with those given, or choose another --out")
    warnings.warn(f"{missing}; it continues with those given", stacklevel=2)
    return True


def same_source(
    folder: Path, before: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of the data with the run's own path, if they are now at another one.

    Whether they are the same images is for `check_split` to say.

    Args:
        folder: the run folder.
        before: the settings of the run.
        settings: the settings now.

    Returns: an entry `data`; nothing if the path is the same, or no path, or the run has no record
    of the files of its images, as of an older version.
    """
    old, new = (before.get("data") or {}).get("source"), settings["data"]["source"]
    if old in (None, new) or not os.path.exists(new):
        return {}
    if not any(row.size or row.content for row in read_split(folder) or ()):
        return {}
    return {"data": {**settings["data"], "source": old}}


def resume_split(
    folder: Path,
    dataset: TrainingData[Split],
    before: Mapping[str, Any],
    settings: Mapping[str, Any],
    accept_replaced: bool,
    *,
    ended: bool,
) -> int:
    """Compares the data with those of a run that is resumed, and records what was accepted.

    The data of a finished run are only compared if they have moved, and nothing is recorded.

    Args:
        folder: the run folder.
        dataset: the data.
        before: the settings of the run; its data may have moved since.
        settings: the settings now.
        accept_replaced: accept image files that have changed.
        ended: whether the run is finished.

    Returns: the number of images that were replaced.
    Raises:
        InputError: lists the differences.
    """
    old, new = (values["data"].get("root") for values in (before, settings))

    def moved(path: str) -> str:
        inside = old and new and path.startswith(os.path.join(os.path.abspath(old), ""))
        return os.path.join(new, os.path.relpath(path, old)) if inside else path

    source = bool(same_source(folder, before, settings))
    if ended and not source:
        return 0
    where = moved_to(folder, dataset) if source else moved
    replaced = check_split(folder, dataset, moved=where, accept_replaced=accept_replaced)
    if ended:
        return len(replaced)
    if replaced or source or old != new or not (folder / FILE).is_file():
        write_split(folder, dataset)
    return len(replaced)


def _written_by(run: RunFolder) -> str:
    """The version that created the run folder, if it is not this one."""
    return "" if run.version == VERSION else f" (created by longtail {run.version})"

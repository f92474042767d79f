"""The models that a run is given: a teacher, a first stage, or a model to start from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from longtail.errors import InputError
from longtail.files import file_checksum, write_json
from longtail.training.config import Config
from longtail.training.run import GIVEN, GIVEN_NAMES, RunFolder
from longtail.training.task import Task


def given_models(config: Config) -> Iterator[tuple[str, list[str]]]:
    """Names of the settings that give models, each with its run folders or files of weights."""
    for name in GIVEN_NAMES:
        value = getattr(config, name)
        given = [value] if isinstance(value, str) else value or []
        if given and given not in (["train"], ["none"]):
            yield name, given


def checksums(task: Task[Any, Any, Any], config: Config) -> dict[str, list[str]]:
    """Checksums of the given models, by the name of the setting, without those that are gone."""
    found: dict[str, list[str]] = {}
    for name, given in given_models(config):
        try:
            files = [task.trained(one, config.trusted).file for one in given]
        except InputError:  # it is needed no more if the run has ended
            continue
        found[name] = [file_checksum(file) for file in files]
    return found


def write_given(folder: Path, found: Mapping[str, list[str]]) -> None:
    """Records the checksums in the folder of a run that starts, if there are any."""
    if found:
        write_json(folder / GIVEN, found)


def check_given(run: RunFolder, found: Mapping[str, list[str]]) -> dict[str, Any]:
    """Compares the given models with those that a run was started with.

    Args:
        run: the run; an older version has not recorded them.
        found: their checksums now.

    Returns: the settings whose models are the same, wherever they are now, as the run has them.
    Raises:
        InputError: when a model is another one.
    """
    known, before = run.given_models, run.config
    if changed := [name for name in found if name in known and known[name] != found[name]]:
        raise InputError(
            f"{run.folder} cannot be resumed with another model as {' and '.join(changed)} than it "
            "was started with: the checksum of its file differs"
        )
    return {name: before[name] for name in found if name in known and name in before}

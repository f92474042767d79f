"""Files of weights, by path or by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from longtail.errors import InputError
from longtail.names import nearest

ENDING = ".safetensors"
# Searched for a name: in a checkout of the repository, then in the current folder, which precedes.
FOLDERS = (Path(__file__).parents[3] / "results/weights", Path("results/weights"))


def are_weights(run: object) -> TypeGuard[str | Path]:
    """Whether the argument is a file of weights, or the name of one, instead of a run."""
    if not isinstance(run, str | Path) or Path(run).is_dir():
        return False
    return Path(run).suffix == ENDING or str(run) in dict(known_files())


def refuse_missing(run: str | Path) -> None:
    """Rejects what is neither a folder nor a file of weights or its name.

    Raises:
        InputError: names the nearest weights.
    """
    if not are_weights(run) and not Path(run).is_dir():
        hint = nearest(str(run), dict(known_files()))
        raise InputError(f"{run} is not a run folder, nor the name of weights{hint}")


def find_file(name: str | Path) -> Path:
    """The file of weights with a name from `longtail list weights`, or with a path.

    Raises:
        InputError: when there is no such file; the message lists the known names.
    """
    if Path(name).suffix == ENDING:
        if not Path(name).is_file():
            raise InputError(f"no such file: {name}")
        return Path(name)
    files = dict(known_files())
    if str(name) not in files:
        raise InputError(
            f"weights must be one of {[*files]} or a {ENDING} file, got {str(name)!r}"
            f"{nearest(str(name), files)}"
        )
    return files[str(name)]


def known_files() -> Iterator[tuple[str, Path]]:
    """Names and files of the weights in FOLDERS; of those with the same name, the last is used."""
    for folder in FOLDERS:
        for file in folder.glob(f"*{ENDING}"):
            yield file.stem, file

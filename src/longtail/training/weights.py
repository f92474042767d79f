"""Files of weights: one trained model each, with its card, by path or by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from longtail.errors import InputError
from longtail.models import ImageClassifier
from longtail.names import nearest, trusted_paths
from longtail.prior import ClassPrior
from longtail.training.card import read_card
from longtail.training.model_file import load_weights, make_classifier
from longtail.training.run import Run

ENDING = ".safetensors"
# Searched for a name: in a checkout of the repository, then in the current folder, which precedes.
FOLDERS = (Path(__file__).parents[3] / "results/weights", Path("results/weights"))


class ModelFile:
    """A trained classifier in one file.

    Args:
        file: written by `longtail.weights.write_weights`.
        trust: as for `longtail.training.Run`.

    Raises:
        InputError: when the file is not a valid model file.

    Attributes:
        card: backbone, head, classes, class counts, settings, seed, commit, metrics.
    """

    def __init__(self, file: str | Path, trust: Any = ()) -> None:
        self.file = Path(file)
        self.card = read_card(self.file, ("backbone", "head", *Run.card))
        self.trust = trusted_paths(trust)

    @property
    def prior(self) -> ClassPrior:
        """Class prior of the training split."""
        return ClassPrior(self.card["class_counts"])

    def model_card(self) -> dict[str, Any]:
        """The card, as a run has it."""
        return self.card

    def model(self) -> ImageClassifier:
        """The trained model, in evaluation mode on the CPU."""
        return load_weights(self.file, self.card, make_classifier, self.trust)


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

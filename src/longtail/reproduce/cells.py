"""Cells of the matrix: settings, run folder and command of each."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longtail.errors import InputError
from longtail.recipes import cifar_lt, find_recipe, overlay
from longtail.settings import from_arguments, to_config
from longtail.training import Run
from longtail.training.config import STAGES


@dataclass(frozen=True)
class Cell:
    """One method at one imbalance with one seed: a run folder, or another cell's judged anew.

    Args:
        source: the data set.
        row: name of the method, or of a variant.
        imbalance: of the training set.
        seed: of the run.
        scale: of all epochs.
        runs: folder of all run folders.
    """

    source: str
    row: str
    imbalance: int
    seed: int
    scale: float
    runs: Path

    @property
    def of(self) -> "Cell | None":
        """The cell on whose run this one stands, if it does."""
        before = {**cifar_lt.PC_SOFTMAX, **cifar_lt.FIRST_STAGE}.get(self.row)
        return Cell(**{**vars(self), "row": before}) if before else None

    @property
    def trains(self) -> bool:
        """Whether it has a run of its own."""
        return self.row not in cifar_lt.PC_SOFTMAX

    def _recipe(self, method: str) -> Mapping[str, Any]:
        """The settings of a method's recipe at this imbalance."""
        return find_recipe(self.source, method, self.imbalance).settings

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its run, all epochs scaled alike."""
        method, changes = cifar_lt.VARIANTS.get(self.row, (self.row, {}))
        settings: dict[str, Any] = overlay(self._recipe(method), changes)
        if self.scale == 2:
            settings = overlay(settings, cifar_lt.LONG.get(self.row, {}))
        settings["epochs"] = scaled(settings["epochs"], self.scale)
        for stage in STAGES:
            if "epochs" in settings.get(stage, {}):
                epochs = scaled(settings[stage]["epochs"], self.scale)
                settings[stage] = {**settings[stage], "epochs": epochs}
        return settings

    @property
    def epochs(self) -> int:
        """Epochs of its run; of two-stage methods those of the first stage."""
        if self.of:
            return self.of.epochs
        return int(self.settings.get("first_stage", self.settings)["epochs"])

    @property
    def folder(self) -> Path:
        """Its run folder, or that of the cell whose run it judges."""
        if self.of and not self.trains:
            return self.of.folder
        name = f"{self.row}-{self.imbalance}-{self.epochs}epochs-seed{self.seed}"
        return self.runs / self.source / name

    def command(self, root: str | None) -> list[str]:
        """What `longtail` is called with to train it."""
        method = cifar_lt.VARIANTS.get(self.row, (self.row, {}))[0]
        words = ["train", self.source, "--method", method]
        words += [f"--data.imbalance={self.imbalance}", f"--seed={self.seed}"]
        words += [f"--data.root={root}"] if root else []
        words += list(_options(self.settings, self._recipe(method)))
        words += [f"--first={self.of.folder}"] if self.of else []
        return [*words, f"--out={self.folder}", "--resume"]

    @property
    def done(self) -> bool:
        """Whether its run has ended, with figures."""
        return (self.folder / "config.yaml").is_file() and Run(self.folder).finished

    def check(self, root: str | None) -> None:
        """Refuses a run folder whose run was trained with other settings.

        Raises:
            ValueError: names the folder and the settings.
        """
        if not (self.folder / "config.yaml").is_file():
            return
        asked = json.loads(json.dumps(asdict(to_config(from_arguments(self.command(root)[1:])))))
        known = {name: value for name, value in asked.items() if value != "auto"}
        if other := Run(self.folder).differences(known):
            raise InputError(
                f"{self.folder} holds a run with other settings ({'; '.join(other)}): "
                "take it away, or name another folder for --runs"
            )


def row_names(source: str) -> list[str]:
    """Names of the rows: methods with a recipe, their variants, and PC-Softmax.

    Raises:
        ValueError: when there is no matrix for the source.
    """
    if source not in cifar_lt.PUBLISHED:
        raise InputError(f"source must be one of {sorted(cifar_lt.PUBLISHED)}, got {source!r}")
    return [*cifar_lt.SETTINGS, *cifar_lt.VARIANTS, *cifar_lt.PC_SOFTMAX]


def scaled(epochs: int, scale: float) -> int:
    """Epochs of a scaled schedule; none stay none.

    Example:
        >>> scaled(200, 0.1), scaled(20, 0.01), scaled(0, 0.1)
        (20, 1, 0)
    """
    return max(1, round(epochs * scale)) if epochs else 0


def _options(settings: Mapping[str, Any], recipe: Mapping[str, Any]) -> Iterator[str]:
    """Options for all settings that differ from the recipe's."""
    for name, value in settings.items():
        if recipe.get(name) == value:
            continue
        if isinstance(value, Mapping) and name not in STAGES:
            inner = recipe.get(name, {})
            yield from (f"--{name}.{word[2:]}" for word in _options(value, inner))
        else:
            yield f"--{name}={value if isinstance(value, str) else json.dumps(value)}"

"""Cells of the matrix, each with its configuration and run folder."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longtail.classification import CLASSIFICATION
from longtail.errors import InputError
from longtail.recipes import cifar_lt, find_recipe, overlay
from longtail.settings import from_keywords, to_config
from longtail.training import Run
from longtail.training.config import STAGES, changed_settings
from longtail.training.given_models import check_given, checksums


@dataclass(frozen=True)
class Cell:
    """One method at one imbalance with one seed: a run, or a new evaluation of another cell's run.

    Args:
        source: data set.
        row: name of the method, or of a variant of it.
        imbalance: imbalance of the training set.
        seed: seed of the run.
        scale: factor on all epochs.
        runs: folder of all run folders.
        kept: folder of the weights of finished runs; None: there is none.
    """

    source: str
    row: str
    imbalance: int
    seed: int
    scale: float
    runs: Path
    kept: Path | None = None

    @property
    def of(self) -> "Cell | None":
        """The cell whose run this one uses, if any."""
        before = {**cifar_lt.PC_SOFTMAX, **cifar_lt.FIRST_STAGE, **cifar_lt.TEACHER}.get(self.row)
        return replace(self, row=before) if before else None

    @property
    def trains(self) -> bool:
        """Whether it has a run of its own."""
        return self.row not in cifar_lt.PC_SOFTMAX

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its run, with all epochs scaled by the same factor."""
        method, changes = cifar_lt.VARIANTS.get(self.row, (self.row, {}))
        recipe = find_recipe(self.source, method, self.imbalance)
        settings: dict[str, Any] = overlay(recipe.settings, changes)
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
        """Epochs of its run; for two-stage methods, those of the first stage."""
        if self.of:
            return self.of.epochs
        return int(self.settings.get("first_stage", self.settings)["epochs"])

    @property
    def folder(self) -> Path:
        """Its run folder, or that of the cell whose run it evaluates."""
        if self.of and not self.trains:
            return self.of.folder
        name = f"{self.row}-{self.imbalance}-{self.epochs}epochs-seed{self.seed}"
        return self.runs / self.source / name

    @property
    def weights(self) -> str:
        """Name of its saved weights, such as `cifar100-lt-gml-100`."""
        name = f"{self.source}-{self.row}-{self.imbalance}"
        name += "" if self.epochs == 200 else f"-{self.epochs}epochs"
        return name if self.seed == 0 else f"{name}-seed{self.seed}"

    @property
    def model(self) -> Path:
        """Where other runs find its model: its run folder, or else its kept weights."""
        file = self.kept and self.kept / f"{self.weights}.safetensors"
        return file if file and file.is_file() and not self.folder.is_dir() else self.folder

    @property
    def stage(self) -> str:
        """The setting that names the model of the other cell whose model its run uses."""
        return "teacher" if self.row in cifar_lt.TEACHER else "first"

    @property
    def given(self) -> Path:
        """The model of the other cell: the one that its run was started with, if it still matters.

        One that has moved is found where the other cell is now.
        """
        assert self.of
        if (self.folder / "config.yaml").is_file():
            run = Run(self.folder)
            used = str(run.config.get(self.stage))
            if used not in ("none", "train") and (run.finished or Path(used).exists()):
                return Path(used)
        return self.of.model

    @property
    def needs(self) -> "Cell | None":
        """The cell that must be trained before this one, if any."""
        if not self.of or not self.trains:
            return self.of
        same = os.path.realpath(self.given) == os.path.realpath(self.of.folder)
        return self.of if same and not self.done else None

    def config(self, root: str | None) -> dict[str, Any]:
        """Settings of its run, as a configuration file has them.

        Args:
            root: folder of the data files.
        """
        method = cifar_lt.VARIANTS.get(self.row, (self.row, {}))[0]
        data = {
            "source": self.source,
            "imbalance": self.imbalance,
            **({"root": root} if root else {}),
        }
        config = {**self.settings, "data": data, "seed": self.seed}
        config["method"] = {"name": method, **config.get("method", {})}
        if not self.of:
            return config
        return {**config, self.stage: str(self.given)}

    @property
    def done(self) -> bool:
        """Whether its run has ended, with metrics."""
        return Run.has_ended(self.folder)

    def check(self, root: str | None) -> None:
        """Rejects a run folder whose run was trained with other settings.

        Args:
            root: folder of the data files.

        Raises:
            InputError: names the folder and the settings.
        """
        if not (self.folder / "config.yaml").is_file():
            return
        run, config = Run(self.folder), to_config(from_keywords(**self.config(root)))
        decided = {**config.defaults, **run.config}
        # What the settings leave open has been decided in the run.
        settled = {
            name: decided.get(name) if value in ("auto", None) else value
            for name, value in config.stored.items()
        }
        settled |= check_given(run, checksums(CLASSIFICATION, config))
        if other := changed_settings(run.config, settled, config.defaults):
            raise InputError(
                f"{self.folder} holds a run with other settings ({'; '.join(other)}): "
                "remove it, or name another folder with --runs"
            )


def row_names(source: str) -> list[str]:
    """Names of the rows: methods with a recipe, their variants, and PC-Softmax.

    Raises:
        InputError: when there is no matrix for the source.
    """
    if source not in cifar_lt.PUBLISHED:
        raise InputError(f"source must be one of {sorted(cifar_lt.PUBLISHED)}, got {source!r}")
    return [*cifar_lt.SETTINGS, *cifar_lt.VARIANTS, *cifar_lt.PC_SOFTMAX]


def scaled(epochs: int, scale: float) -> int:
    """Epochs of a scaled schedule; zero stays zero.

    Examples:
        >>> scaled(200, 0.1), scaled(20, 0.01), scaled(0, 0.1)
        (20, 1, 0)
    """
    return max(1, round(epochs * scale)) if epochs else 0

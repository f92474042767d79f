"""Run folders: what a training run writes, and how it is read.

A run folder may come from anyone. Its files are data: nothing that they name is imported unless it
belongs to longtail or timm, or the user trusts it.
"""

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import yaml
from torch import nn

from longtail.errors import InputError
from longtail.files import check_out, read_records, read_values, whole_file, write_json, write_text
from longtail.models import ImageClassifier, merge_lora, tune_backbone
from longtail.names import trusted_paths
from longtail.prior import ClassPrior
from longtail.training.card import IMAGE_CARD, check_card, is_number, read_card
from longtail.training.checkpoint import Checkpoints
from longtail.training.environment import environment
from longtail.training.model_file import Model, load_weights, make_classifier, save_weights
from longtail.training.predictions import Predictions

if TYPE_CHECKING:
    from longtail.training.inference import AnyImage
    from longtail.training.predict import Classified

WORDS = {"split", "selection"}  # what the metrics are from, next to them
MODEL, CARD = "model.safetensors", "card.json"
GIVEN = "given_models.json"
DECISIONS = "decisions.json"  # of a run on own images, whose last stage writes `config.yaml`
# Files of a run that no output may replace.
OWN_FILES = {
    *(MODEL, CARD, GIVEN, DECISIONS, "config.yaml", "environment.json", "metrics.json"),
    *("metrics.jsonl", "predictions.parquet", "reference.safetensors", "split.csv"),
    *("confusion.json", "not_finite.json"),
}
GIVEN_NAMES = ("teacher", "first", "start")  # settings that name a model
STAGE_FOLDERS = ("teacher", "first", "ce", "head")


class RunFolder(ABC):
    """A run folder: settings, checkpoints, log, metrics and model; one subclass per task.

    Args:
        folder: an existing run folder, or one made by `create`.
        trust: import paths that the files of the run may name, such as the backbone's, or the
            objects themselves; one or several. No other user code is imported.

    Raises:
        InputError: when `folder` is not a run folder, or is one of another task.
    """

    reads: ClassVar[str]  # name of the task
    needed: ClassVar[tuple[str, ...]]  # entries of the model's card besides those on the classes

    def __init__(self, folder: str | Path, trust: Any = ()) -> None:
        self.folder = Path(folder)
        self.trust = trusted_paths(trust)
        if (task := task_of(folder)) != self.reads:
            raise InputError(f"{folder} must hold a run of {self.reads}, got one of {task}")
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self._state: dict[str, Any] | None = None  # of a checkpoint, see `latest`

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any], trust: Any = ()) -> Self:
        """Creates the folder, with the settings and the environment."""
        write_json(folder / "environment.json", environment())
        write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        return cls(folder, trust)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings."""
        return read_values(self.folder / "config.yaml")

    @property
    def starts(self) -> list[dict[str, Any]]:
        """The environment of the start, and each different one in which the run was resumed.

        That of the start is missing if its file was lost; see `note_resumption`.
        """
        path = self.folder / "environment.json"
        first = read_values(path) if path.is_file() else {}
        later = first.pop("resumed", [])
        return [{**first, **_computing(self.config)}, *later] if first else later

    @property
    def version(self) -> str:
        """Version of longtail that created the folder."""
        try:
            first = read_values(self.folder / "environment.json")
        except (OSError, InputError):
            return "unknown"
        packages = first.get("packages")
        return str(packages.get("longtail")) if isinstance(packages, dict) else "unknown"

    def note_resumption(self, config: Mapping[str, Any], replaced: int = 0) -> None:
        """Records that the run is resumed, if device, precision, versions or commit changed.

        A missing or corrupt file is written again, without the environment of the start.

        Args:
            config: settings of the run.
            replaced: images that were replaced since the last start.
        """
        path = self.folder / "environment.json"
        now = {**environment(), **_computing(config)}
        try:
            first = read_values(path)
            later = list(first.pop("resumed", []))
            last = later[-1] if later else {**first, **_computing(self.config)}
            changed = any(last.get(name) != now[name] for name in now.keys() - {"command"})
        except (OSError, InputError, AttributeError, TypeError) as error:
            warnings.warn(f"{path} is written again: {error}", stacklevel=2)
            first, later, changed = {}, [], True
        if replaced:
            now["replaced_images"] = replaced
        if changed or replaced:
            write_json(path, {**first, "resumed": [*later, now]})

    def note_source(self, source: str) -> None:
        """Records where the data of the run are now."""
        config = self.config
        config["data"]["source"] = source
        write_text(self.folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))

    def mend_history(self) -> None:
        """Removes a torn last line from `metrics.jsonl`, so that no epoch is lost.

        Raises:
            InputError: when another line is not the record of an epoch.
        """
        path = self.folder / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        if lines and not _is_record(lines[-1]):
            warnings.warn(f"the last line of {path} is incomplete and was removed", stacklevel=2)
            with whole_file(path) as part:
                part.write_bytes(b"".join(lines[:-1]))
        for number, record in enumerate(self.history, 1):
            if not isinstance(record.get("epoch"), int):
                raise InputError(f"{path}, line {number}, must hold the number of its epoch")

    def over_starts(self, pick: Callable[[dict[str, Any]], object]) -> str | None:
        """A value that may have changed during training, as `this, then that`."""
        picked = dict.fromkeys(pick(start) for start in self.starts)
        return None if set(picked) == {None} else ", then ".join(map(str, picked))

    @property
    def commit(self) -> str | None:
        """The commit of longtail that trained it; None if it was not run from a checkout."""
        return self.over_starts(lambda start: (start["git"] or {}).get("commit"))

    @classmethod
    def has_ended(cls, folder: str | Path) -> bool:
        """Whether a folder holds a finished run."""
        return (Path(folder) / "config.yaml").is_file() and cls(folder).finished

    @property
    def finished(self) -> bool:
        """Whether the training has ended, with a model; `metrics.json` is written last.

        A run with metrics of NaN logits, which an older version kept, is not finished.
        """
        path = self.folder / "metrics.json"
        if not (path.is_file() and self.file.is_file()):
            return False
        try:
            stored = read_values(path)
        except InputError:
            return False
        return "selection" in stored and stored.get("brier", 0.0) is not None

    def latest(self) -> Self:
        """The run itself if it has ended, else a view of it as of its last checkpoint.

        A warning says so; `model`, `model_card` and `prior` are then those of the checkpoint.

        Raises:
            InputError: when the training has not ended and there is no checkpoint.
        """
        if self.finished:
            return self
        state = self.checkpoints.load_last(set_aside=False)
        if state is None or not (self.folder / CARD).is_file():
            raise InputError(
                f"{self.folder} cannot be used yet: its training has not ended, and has no "
                "checkpoint to go by"
            )
        view = type(self)(self.folder, self.trust)
        view._state = state
        steps = f" and {state['step']} steps" if state.get("step") else ""
        warnings.warn(
            f"the training of {self.folder} has not ended: this is of its last checkpoint, after "
            f"{state.get('epoch')} of {self.config.get('epochs')} epochs{steps}",
            stacklevel=3,
        )
        return view

    @property
    def stages(self) -> list[Self]:
        """The runs of the stages that were trained as part of this run."""
        folders = [self.folder / name for name in STAGE_FOLDERS]
        return [
            type(self)(folder, self.trust)
            for folder in folders
            if (folder / "config.yaml").is_file()
        ]

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics at the end of the training; NaN for one that is undefined.

        Raises:
            InputError: when the training has not ended.
        """
        if not self.finished:
            raise InputError(f"{self.folder} has no valid metrics.json: its training has not ended")
        path = self.folder / "metrics.json"
        stored = read_values(path)
        if wrong := _wrong_metrics(stored):
            raise InputError(f"{path} is not valid: {'; '.join(wrong)}")
        return {name: math.nan if value is None else value for name, value in stored.items()}

    @property
    def history(self) -> list[dict[str, float]]:
        """One record per epoch.

        Raises:
            InputError: when a line is not the record of an epoch.
        """
        path = self.folder / "metrics.jsonl"
        records = read_records(path)
        for number, record in enumerate(records, 1):
            if wrong := _wrong_metrics(record):
                raise InputError(f"{path}, line {number}, is not valid: {'; '.join(wrong)}")
        return records

    @property
    def given_models(self) -> dict[str, Any]:
        """Checksums of the models that the run was given, by setting, as recorded at its start."""
        path = self.folder / GIVEN
        known = read_values(path) if path.is_file() else {}
        return {name: known[name] for name in GIVEN_NAMES if name in known}

    @property
    def file(self) -> Path:
        """The file of the model."""
        return self.folder / MODEL

    def log_epoch(self, record: Mapping[str, float]) -> None:
        """Appends the record of an epoch; replaces a killed run's records from that epoch on."""
        kept = [r for r in self.history if r["epoch"] < record["epoch"]]
        lines = [json.dumps(r) for r in [*kept, dict(record)]]
        write_text(self.folder / "metrics.jsonl", "\n".join(lines) + "\n")

    def save_model(self, model: nn.Module, card: Mapping[str, Any]) -> None:
        """Writes `model.safetensors`, with the card that is needed to rebuild the model."""
        save_weights(self.file, model, card)

    def save_card(self, card: Mapping[str, Any]) -> None:
        """Writes the card at the start of training, for its checkpoints."""
        write_json(self.folder / CARD, card)

    def model_card(self) -> dict[str, Any]:
        """The model's card: names of backbone, head and classes, class counts, image size.

        Raises:
            InputError: when the training has not ended, or the file is corrupt.
        """
        if self._state is not None:
            return check_card(read_values(self.folder / CARD), self.folder / CARD, self.needed)
        path = self.file
        if not path.is_file():
            raise InputError(f"{self.folder} has no {MODEL}: its training has not ended")
        return read_card(path, self.needed)

    @property
    def prior(self) -> ClassPrior:
        """Class prior of the training split."""
        return ClassPrior(self.model_card()["class_counts"])

    @abstractmethod
    def model(self) -> nn.Module:
        """The trained model, in evaluation mode on the CPU.

        Raises:
            InputError: when the training has not ended.
        """

    def _load_weights(self, make: Callable[[dict[str, Any]], Model]) -> Model:
        """The model that `make` builds from the card, with the weights of the run."""
        card = {**self.model_card(), "longtail_version": self.version}
        state = self._state
        if state is None:
            return load_weights(self.file, card, make, self.trust)
        path, config = self.folder / CARD, self.config
        return load_weights(
            path, card, make, self.trust, lambda model: load_checkpoint(model, state, config)
        )


class Run(RunFolder):
    """A run folder of image classification."""

    reads = "classification"
    needed = IMAGE_CARD

    def predictions(self) -> Predictions:
        """The raw logits of the split that the run was evaluated on."""
        path = self.folder / "predictions.parquet"
        if not path.is_file():
            raise InputError(
                f"{self.folder} has no predictions.parquet: its training has not ended"
            )
        return Predictions.read(path)

    def predict(self, images: "AnyImage | Sequence[AnyImage]") -> "Classified":
        """Classes of images: paths, PIL images or arrays (height, width, 3) of uint8.

        Raises:
            InputError: when the training has not ended, or for an image of another type or shape.
            UnreadableImagesError: names every file that cannot be read.
        """
        from longtail.training.predict import predict_images  # which reads runs

        return predict_images(self, images)

    def model(self) -> ImageClassifier:
        """The trained model, in evaluation mode on the CPU.

        Raises:
            InputError: when the training has not ended.
        """
        return self._load_weights(make_classifier)


def check_run_out(path: Path, command: str, sources: Iterable[str | Path] = ()) -> None:
    """Rejects an output as `check_out` does, and one that would replace a file of a run.

    Args:
        path: file to write.
        command: the command that writes it.
        sources: what the command reads, besides runs.

    Raises:
        InputError: see `check_out`.
    """
    check_out(path, command, sources)
    is_run = any((path.parent / name).is_file() for name in ("config.yaml", DECISIONS))
    if is_run and path.name in OWN_FILES:
        raise InputError(f"out of {command} must not replace {path}, a file of the run")


def load_checkpoint(model: Any, state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Loads the model of a checkpoint, with the average of its weights if there is one.

    Args:
        model: a model of the same architecture.
        state: the checkpoint.
        config: settings of the run.
    """
    lora = config.get("tune") == "lora"
    if lora:
        tune_backbone(model.backbone, "lora", config["lora_rank"])
    average = state.get("average", {"average": {}})["average"]  # of `--ema`
    weights = {**state["method"], **average}
    own = {name.partition(".")[2]: w for name, w in weights.items() if name.startswith("model.")}
    model.load_state_dict(own)
    if lora:
        merge_lora(model.backbone)


def _wrong_metrics(stored: Mapping[str, Any]) -> list[str]:
    """Describes metrics that are not numbers; split and selection are strings."""
    wrong = []
    for name, value in stored.items():
        if name in WORDS and not isinstance(value, str):
            wrong.append(f"{name} must be a text")
        elif name not in WORDS and not (value is None or is_number(value)):
            wrong.append(f"{name} must be a number")
    return wrong


def settings_file(folder: Path) -> Path | None:
    """The file with the settings of a run that was started, so that it can be resumed."""
    paths = (folder / name for name in (DECISIONS, "config.yaml"))
    return next(filter(Path.is_file, paths), None)


def task_of(folder: str | Path) -> str:
    """Name of the task of the run in a folder.

    Raises:
        InputError: when the folder does not hold a run.
    """
    path = Path(folder) / "config.yaml"
    if (Path(folder) / DECISIONS).is_file() and not path.is_file():
        head = Path(folder) / "head"
        hint = f"; until then, use {head}" if Run.has_ended(head) else ""
        raise InputError(
            f"the training in {folder} has not reached its last stage: continue it with "
            f"`longtail train --resume true --out {folder}`{hint}"
        )
    if not path.is_file():
        raise InputError(f"{folder} is not a run folder: it has no config.yaml")
    return str(read_values(path).get("task", Run.reads))  # 0.1.0 named only the other tasks


def _is_record(line: bytes) -> bool:
    """Whether a line of `metrics.jsonl` was written completely."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _computing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that only affect how a run is computed."""
    return {name: config.get(name) for name in ("precision", "devices", "nodes")}

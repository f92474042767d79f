"""A run folder: what a training run leaves, and how it is read again."""

import errno
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.files import read_records, read_values, whole_file, write_json, write_text
from longtail.models import ImageClassifier, create_backbone, create_head
from longtail.prior import ClassPrior
from longtail.training.checkpoint import Checkpoints

# Between a run and its resumption.
MAY_DIFFER = {"device", "devices", "nodes", "precision", "checkpoint_every", "logger"}
Model = TypeVar("Model", bound=nn.Module)
PACKAGES = ("longtail", "torch", "torchvision", "lightning-fabric", "numpy")


@dataclass(frozen=True)
class Predictions:
    """Raw logits of a split, and all that is needed to judge them.

    Args:
        logits: (N, C) float32, unadjusted.
        labels: (N,) class index.
        index: (N,) place of each image in its source.
        paths: file of each image.
        class_names: name of each class.
        prior: of the training set.
        expressed: the prior that the logits express: `source`, `uniform` or (C,) probabilities.
        name: of the data set.
        split: of the data set.
    """

    logits: Tensor
    labels: Tensor
    index: Tensor
    paths: tuple[str, ...]
    class_names: tuple[str, ...]
    prior: ClassPrior
    expressed: str | list[float]
    name: str
    split: str = "test"

    def write(self, path: Path) -> None:
        """Writes a Parquet file, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(self.logits.float().reshape(-1).numpy())
        table = pa.table(
            {
                "logits": pa.FixedSizeListArray.from_arrays(flat, self.logits.shape[1]),
                "label": self.labels.numpy(),
                "index": self.index.numpy(),
                "path": pa.array(self.paths, pa.string()),
            }
        )
        about = {
            "class_names": self.class_names,
            "class_counts": self.prior.counts.tolist(),
            "expressed": self.expressed,
            "name": self.name,
            "split": self.split,
        }
        table = table.replace_schema_metadata({"longtail": json.dumps(about)})
        with whole_file(path) as part:
            pq.write_table(table, part)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Reads what `write` wrote.

        Raises:
            ValueError: when the file is no predictions file of this package.
        """
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            about = cls.about(table.schema)
            columns = {name: table[name].combine_chunks() for name in ("logits", "label", "index")}
            values = columns["logits"].flatten().to_numpy(zero_copy_only=False)
            return cls(
                logits=torch.from_numpy(values.copy()).view(-1, len(about["class_names"])),
                labels=torch.from_numpy(columns["label"].to_numpy().copy()),
                index=torch.from_numpy(columns["index"].to_numpy().copy()),
                paths=tuple(table["path"].to_pylist()),
                class_names=tuple(about["class_names"]),
                prior=ClassPrior(about["class_counts"]),
                expressed=about["expressed"],
                name=about["name"],
                split=about["split"],
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no whole predictions file: {error}") from error

    @staticmethod
    def about(schema: Any) -> dict[str, Any]:
        """What the file says of its logits, from its pyarrow schema.

        Raises:
            ValueError: when that does not fit, or parts of it are missing.
            KeyError: when there is no column of logits.
        """
        metadata = schema.metadata or {}
        if b"longtail" not in metadata:
            raise InputError("it has no metadata of longtail, so it is no predictions file")
        about = json.loads(metadata[b"longtail"])
        missing = {"class_names", "class_counts", "expressed", "name", "split"} - about.keys()
        if missing:
            raise InputError(f"its metadata has no {', '.join(sorted(missing))}")
        width = getattr(schema.field("logits").type, "list_size", None)
        if width != len(about["class_names"]):
            known = len(about["class_names"])
            raise InputError(f"it names {known} classes, its logits have {width}")
        return cast(dict[str, Any], about)


class Run:
    """A run folder.

    Args:
        folder: made by `create`, else it must hold a run.

    Raises:
        ValueError: when `folder` holds no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "config.yaml").is_file():
            raise InputError(f"{self.folder} is no run folder: it has no config.yaml")
        self.checkpoints = Checkpoints(self.folder / "checkpoints")

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any]) -> "Run":
        """Makes the folder, with its settings and the state of everything around it."""
        write_json(folder / "environment.json", environment())
        write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        return cls(folder)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings."""
        return read_values(self.folder / "config.yaml")

    @property
    def starts(self) -> list[dict[str, Any]]:
        """What was around the run when it began, and each time it went on elsewhere."""
        first = read_values(self.folder / "environment.json")
        later = first.pop("resumed", [])
        return [{**first, **_computing(self.config)}, *later]

    def go_on(self, config: Mapping[str, Any]) -> None:
        """Notes that the run goes on, where device, precision, versions or commit are others."""
        first, *later = self.starts
        last, now = [first, *later][-1], {**environment(), **_computing(config)}
        if any(last.get(name) != now[name] for name in now.keys() - {"command"}):
            write_json(self.folder / "environment.json", {**first, "resumed": [*later, now]})

    @property
    def task(self) -> str:
        """`classification` or `segmentation`."""
        return str(self.config.get("task", "classification"))

    def over_starts(self, pick: Callable[[dict[str, Any]], object]) -> str | None:
        """Something that may have changed while the run was trained, as `this, then that`."""
        picked = dict.fromkeys(pick(start) for start in self.starts)
        return None if set(picked) == {None} else ", then ".join(map(str, picked))

    def differences(self, settings: Mapping[str, Any]) -> list[str]:
        """What settings would train otherwise than the run was, in words.

        Args:
            settings: of a `Config`, as they are in `config.yaml`.
        """
        before = self.config
        return [
            f"{name} was {before.get(name)!r} and is {value!r}"
            for name, value in settings.items()
            if name not in MAY_DIFFER and _lasting(before.get(name)) != _lasting(value)
        ]

    @property
    def finished(self) -> bool:
        """Whether the training ended; `metrics.json` is the last file that it writes."""
        return (self.folder / "metrics.json").is_file()

    @property
    def stages(self) -> "list[Run]":
        """The stage before, where it was trained as a part of this run."""
        folders = [self.folder / name for name in ("teacher", "first")]
        return [Run(folder) for folder in folders if (folder / "config.yaml").is_file()]

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures of the test set at the end of the training; NaN for one that is undefined.

        Raises:
            ValueError: when the training has not ended.
        """
        if not self.finished:
            raise InputError(f"{self.folder} has no metrics.json: its training has not ended")
        stored = read_values(self.folder / "metrics.json")
        return {name: math.nan if value is None else value for name, value in stored.items()}

    @property
    def history(self) -> list[dict[str, float]]:
        """One record an epoch."""
        return read_records(self.folder / "metrics.jsonl")

    def log_epoch(self, record: Mapping[str, float]) -> None:
        """Adds the record of an epoch; one that a killed run left for it, or after it, goes."""
        kept = [r for r in self.history if r["epoch"] < record["epoch"]]
        lines = [json.dumps(r) for r in [*kept, dict(record)]]
        write_text(self.folder / "metrics.jsonl", "\n".join(lines) + "\n")

    def predictions(self) -> Predictions:
        """The raw logits of the test set."""
        path = self.folder / "predictions.parquet"
        if not path.is_file():
            raise InputError(
                f"{self.folder} has no predictions.parquet: its training has not ended"
            )
        return Predictions.read(path)

    def save_model(self, model: nn.Module, about: Mapping[str, Any]) -> None:
        """Writes `model.safetensors`, with what is needed to make the model again."""
        save_weights(self.folder / "model.safetensors", model, about)

    def model_card(self) -> dict[str, Any]:
        """What `save_model` was told: names of backbone, head and classes, counts, image size.

        Raises:
            ValueError: when the training has not ended, or the file is broken.
        """
        from safetensors import safe_open

        path = self.folder / "model.safetensors"
        if not path.is_file():
            raise InputError(f"{self.folder} has no model.safetensors: its training has not ended")
        try:
            with safe_open(path, framework="pt") as handle:
                return cast(dict[str, Any], json.loads(handle.metadata()["longtail"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no whole model file: {error}") from error

    @property
    def prior(self) -> ClassPrior:
        """The class prior of the training set."""
        return ClassPrior(self.model_card()["class_counts"])

    def check_classes(self, names: tuple[str, ...], role: str) -> None:
        """Refuses the run in a role, such as `teacher`, for data with other classes.

        Raises:
            ValueError: when its classes are not `names`, in their order.
        """
        own = tuple(self.model_card()["class_names"])
        if own != names:
            raise InputError(
                f"{role} {self.folder} must know the data's classes, {names[:5]} ..., "
                f"it was trained on {own[:5]} ..."
            )

    def model(self) -> ImageClassifier:
        """The trained model, in evaluation mode on the CPU.

        Raises:
            ValueError: when the training has not ended, or was one of segmentation.
        """
        about = self.model_card()
        if self.task == "segmentation":
            raise InputError(f"{self.folder} is a run of segmentation, not of whole images")
        backbone = create_backbone(about["backbone"])
        head = create_head(about["head"], backbone.num_features, len(about["class_names"]))
        return self._filled(ImageClassifier(backbone, head))

    def _filled(self, model: Model) -> Model:
        """The model with the weights of the run, in evaluation mode."""
        model.load_state_dict(load_file(self.folder / "model.safetensors"))
        return model.eval()


def save_weights(path: Path, model: nn.Module, about: Mapping[str, Any]) -> None:
    """Writes weights as a safetensors file, whole or not at all, `about` in its metadata.

    Raises:
        OSError: when it cannot be written, or does not hold the weights.
    """
    state = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    with whole_file(path) as part:
        try:
            save_file(state, part, metadata={"longtail": json.dumps(about)})
        except SafetensorError as error:  # its form of a full disk
            raise OSError(errno.EIO, str(error)) from error
        written = load_file(part)
        if not all(
            torch.allclose(written[name], value, rtol=0.0, atol=0.0, equal_nan=True)
            for name, value in state.items()
        ):
            raise OSError(errno.EIO, "what was read back are other weights")


def _lasting(value: Any) -> Any:
    """A setting without what may differ in it: where the data lie, who reads them, how paths go."""
    if isinstance(value, Mapping):
        left_out = ("root", "workers", "check")
        return {name: _lasting(inner) for name, inner in value.items() if name not in left_out}
    if isinstance(value, str) and os.path.exists(value):
        return os.path.realpath(value)
    return value


def _computing(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the settings says how it is computed."""
    return {name: config.get(name) for name in ("precision", "devices", "nodes")}


def environment() -> dict[str, Any]:
    """Versions, device, git state and command of this process."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None

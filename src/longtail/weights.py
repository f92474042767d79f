"""Weights of finished runs: one file each, whose accuracy can be recomputed in a minute."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from longtail.classification import CLASSIFICATION
from longtail.data import DataConfig, Dataset
from longtail.errors import InputError
from longtail.export import describe
from longtail.models import ImageClassifier
from longtail.settings import read_data
from longtail.training import Run, evaluate_predictions
from longtail.training.model_file import ModelFile, save_weights
from longtail.training.partial import predict_split
from longtail.training.weights import find_file, known_files

# Settings of the data that are stored: those that decide which images there are, and their labels.
DATA = (
    *("source", "imbalance", "imbalance_type", "image_size", "depth", "path_column"),
    *("label_column", "split_column", "test_fraction", "val_fraction", "seed"),
)
ROUNDED = 5e-4  # loss of accuracy above which weights stay in float32


class Weights(ModelFile):
    """A trained classifier in one file, with all that is needed to evaluate it again.

    Arguments, errors and attributes are those of `longtail.training.model_file.ModelFile`.
    """

    def evaluate(
        self, target_prior: str | None = None, data: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        """Evaluates the model on the test split of the data that it was trained on.

        Args:
            target_prior: as for `longtail.evaluate`.
            data: settings of the data that replace those of the file, such as `{"root": "data"}`.

        Returns: the metrics of `longtail.metrics.classification_metrics`.
        Raises:
            InputError: when the file does not name a data set of longtail, or the data are not
                those that it was evaluated on.
        """
        dataset = CLASSIFICATION.load(self._data(data or {}))
        if (found := checksum(dataset)) != self.card.get("checksum"):
            raise InputError(
                f"{self.file} was evaluated on other data than the test split of {dataset.name}: "
                f"its checksum must be {self.card.get('checksum')}, got {found}"
            )
        return metrics_on_test(self.model(), self.card, dataset, target_prior)

    def _data(self, changes: Mapping[str, Any]) -> DataConfig:
        """The settings of the data; a file may only name data sets of longtail."""
        stored = self.card.get("data_settings", {})
        if "source" not in changes and stored.get("source") not in CLASSIFICATION.catalogue("data"):
            raise InputError(
                f"{self.file} does not name a data set of longtail: give its source, as in "
                "--data.source FOLDER"
            )
        return read_data({**{n: v for n, v in stored.items() if n in DATA}, **changes})


def load(name: str | Path, trust: Any = ()) -> Weights:
    """Loads weights by their name in `longtail list weights`, or from a file, without downloads.

    Args:
        name: such as `cifar100-lt-gml-100`, or a path.
        trust: as for `longtail.training.Run`.

    Returns: `.model()`, `.evaluate(...)`, `.prior` and `.card`.
    Raises:
        InputError: when there is no such file; the message lists the known names.
    """
    return Weights(find_file(name), trust)


def list_weights() -> dict[str, str]:
    """The available weights: a description of each, by name."""
    return {name: _summary(file) for name, file in sorted(dict(known_files()).items())}


def _summary(file: Path) -> str:
    try:
        card = Weights(file).card
    except InputError as error:  # one bad file does not hide the others
        return f"cannot be used: {error}"
    values = {
        "imbalance": card.get("data_settings", {}).get("imbalance"),
        "epochs": card.get("epochs"),
        "seed": card.get("seed"),
    }
    about = [f"{name} {value}" for name, value in values.items() if value is not None]
    accuracy = 100 * card.get("metrics", {}).get("accuracy", math.nan)
    return f"{', '.join([str(card.get('method')), card['backbone'], *about])}: {accuracy:.1f} %"


def write_weights(run: Run, path: Path, root: str | None = None) -> Path:
    """Writes the model of a finished run with all that `Weights.evaluate` needs.

    Weights are rounded to float16, which halves the file, unless that costs accuracy; vectors, such
    as the statistics of batch norm, are not rounded. The card's metrics are those of the rounded
    weights.

    Args:
        run: a finished run on a data set of longtail, whose data are available.
        path: file to write.
        root: folder of the data files now; default: that of the run.

    Returns: the file.
    """
    config = run.config
    settings = {**config["data"], **({"root": root} if root else {})}
    data = {name: config["data"][name] for name in DATA if config["data"].get(name) is not None}
    dataset = CLASSIFICATION.load(DataConfig(**settings))
    card = {
        **describe(run),
        "data_settings": data,
        "checksum": checksum(dataset),
        "epochs": config["epochs"],
        "seed": config["seed"],
        "views": config["views"],
        "settings": config["method"],
        "selection": run.metrics.get("selection"),
        "commit": run.commit,
    }
    model = run.model()
    exact = metrics_on_test(model, card, dataset)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    whole = [p.data for p in matrices]
    for parameter in matrices:
        parameter.data = parameter.data.half().float()
    metrics = metrics_on_test(model, card, dataset)
    if abs(metrics["accuracy"] - exact["accuracy"]) <= ROUNDED:
        for parameter in matrices:
            parameter.data = parameter.data.half()
    else:
        metrics = exact
        for parameter, values in zip(matrices, whole, strict=True):
            parameter.data = values
    card["metrics"] = {name: value for name, value in metrics.items() if value == value}  # no NaN
    save_weights(path, model, card)
    return path


def metrics_on_test(
    model: ImageClassifier,
    card: Mapping[str, Any],
    dataset: Dataset,
    target_prior: str | None = None,
) -> dict[str, float]:
    """Metrics of a model on the test split; see `longtail.evaluate` for `target_prior`."""
    return evaluate_predictions(predict_split(model, card, dataset, "test"), target_prior)


def checksum(dataset: Dataset) -> str:
    """Checksum of the test split: its labels, and its images or their paths in their folder."""
    digest = hashlib.sha256()
    if dataset.test is not None:
        digest.update(dataset.test.labels.numpy().tobytes())
        if dataset.test.images is not None:
            digest.update(dataset.test.images.contiguous().numpy().tobytes())
        else:
            digest.update("\n".join(_in_their_folder(dataset.test.paths)).encode())
    return digest.hexdigest()


def _in_their_folder(paths: Sequence[str]) -> list[str]:
    """Paths relative to the deepest folder that holds all of them, which may move."""
    parts = [path.replace(os.sep, "/").split("/") for path in paths]
    both = zip(min(parts)[:-1], max(parts)[:-1], strict=False)
    depth = len([*takewhile(lambda pair: pair[0] == pair[1], both)])
    return ["/".join(names[depth:]) for names in parts]

"""What a task defines: everything about data, models and results that `train_run` calls."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from torch import nn

from longtail.data.dataset import Split, TrainingData
from longtail.errors import InputError
from longtail.methods import Method
from longtail.training.config import Config
from longtail.training.distributed import on_first
from longtail.training.input import TrainingLoader
from longtail.training.loop import fit
from longtail.training.run import RunFolder

if TYPE_CHECKING:  # it takes seconds to import, and only training needs it
    from lightning_fabric import Fabric


AnyConfig = TypeVar("AnyConfig", bound=Config)
Data = TypeVar("Data", bound=TrainingData[Split])
AnyRun = TypeVar("AnyRun", bound=RunFolder)


class Predicted(Protocol):
    """What `Task.predict` returns."""

    def __len__(self) -> int:
        """Number of images."""


class Checked(Protocol):
    """What `Task.check` returns; its `str` is the report."""

    @property
    def problems(self) -> Sequence[str]:
        """What prevents training or makes its result wrong, one sentence each."""


class Trained(Protocol):
    """A trained model: a run, or a file of weights."""

    @property
    def file(self) -> Path:
        """The file of the model."""

    def model_card(self) -> Mapping[str, Any]:
        """The card of the model."""

    def model(self) -> nn.Module:
        """The model, in evaluation mode on the CPU."""


class Task(ABC, Generic[AnyConfig, Data, AnyRun]):
    """A task, such as the classification of images: its settings, and the steps of training.

    `train_run` calls `load`, `settle`, `trained`, `combined`, `make_method`, `train` and `finish`;
    the commands call the others.

    Attributes:
        name: value of the setting `task`.
        config: class of the settings of a run.
        data_config: class of the settings under `data`.
        methods: base class of the task's methods.
        plain: the method that trains with any classification loss.
        runs: class that reads the run folders.
    """

    name: ClassVar[str]
    config: type[AnyConfig]
    data_config: type[Any]
    methods: type[Method]
    plain: type[Method]
    runs: type[AnyRun]

    @abstractmethod
    def catalogue(self, kind: str) -> Mapping[str, Any]:
        """Names of the task's `backbones`, `views` or `data`.

        Returns: each name, with its description or a documented class or function.
        """

    @abstractmethod
    def load(self, config: Any) -> Data:
        """The data set of the settings under `data`."""

    @abstractmethod
    def check(self, config: Any) -> "Checked":
        """Checks the whole data set of the settings under `data`, and reports."""

    def trained(self, given: str, trust: Any) -> "Trained":
        """The trained model of a run folder.

        Args:
            given: the run folder; for classification also a file of weights, or its name.
            trust: as for `RunFolder`.

        Raises:
            InputError: when there is none.
        """
        return self.runs(given, trust)

    def combined(self, models: Sequence[nn.Module]) -> nn.Module:
        """One model for the given ones of a stage: the only one, or their mean.

        Raises:
            InputError: when the task has no mean of several models.
        """
        if len(models) > 1:
            raise InputError(f"{self.name} takes one model, got {len(models)}")
        return models[0]

    @abstractmethod
    def settle(self, config: AnyConfig, dataset: Data) -> AnyConfig:
        """Replaces `auto` settings with their values, and checks settings against the data.

        Raises:
            InputError: when a setting does not fit the method or the data.
        """

    @abstractmethod
    def make_method(
        self, config: AnyConfig, dataset: Data, stage_model: nn.Module | None = None
    ) -> Method:
        """Makes the backbone and method of a run; equal settings always give equal weights.

        Args:
            config: settings of the run.
            dataset: data of the run.
            stage_model: model of the run's stage: the teacher, or the first stage.
        """

    @abstractmethod
    def loader(
        self, config: AnyConfig, dataset: Data, method: Method, fabric: "Fabric"
    ) -> TrainingLoader:
        """The loader of this process's training batches."""

    @abstractmethod
    def card(self, config: AnyConfig, dataset: Data, method: Method) -> dict[str, Any]:
        """What is needed to rebuild the model; see `longtail.training.card`."""

    def train(
        self, fabric: "Fabric", run: RunFolder, config: AnyConfig, dataset: Data, method: Method
    ) -> None:
        """Trains the method, starting from the run's last checkpoint."""
        if config.epochs:
            on_first(fabric, lambda: run.save_card(self.card(config, dataset, method)))
            fit(fabric, method, self.loader(config, dataset, method, fabric), config, run)

    @abstractmethod
    def finish(
        self, fabric: "Fabric", run: RunFolder, config: AnyConfig, dataset: Data, method: Method
    ) -> None:
        """Predicts with all processes; the first writes model, predictions and metrics.

        `metrics.json` is written last: a run folder that has it is finished.
        """

    @abstractmethod
    def evaluate(
        self, run: AnyRun, target_prior: str | None = None, **options: Any
    ) -> dict[str, float]:
        """Metrics of a run, under any target prior.

        Args:
            run: the run.
            target_prior: `uniform`, `source` or a file of probabilities; default: the prior for
                which the run was evaluated.
            **options: options of the task.

        Raises:
            InputError: for an option that the task does not have.
        """

    @abstractmethod
    def predict(
        self,
        run: AnyRun,
        files: str | Path | Sequence[str | Path],
        target_prior: str | None = None,
        *,
        out: Path | None = None,
        **options: Any,
    ) -> "Predicted":
        """Predictions of a finished run for image files.

        Args:
            run: the run.
            files: image files, and folders to search for them.
            target_prior: as for `evaluate`.
            out: file or folder to write.
            **options: options of the task.

        Raises:
            InputError: for an option that the task does not have.
        """

    @abstractmethod
    def print_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Prints a table of metrics to the terminal, one row per run: `run` is its name."""

    @abstractmethod
    def report(self, folders: Sequence[Path], path: Path, *, pictures: bool = True) -> None:
        """Writes one HTML page that compares runs of this task, with pictures or without."""


def refuse_options(task: str, options: Mapping[str, Any]) -> None:
    """Rejects options that a task does not have.

    Raises:
        InputError: when there are any.
    """
    if options:
        raise InputError(f"{', '.join(sorted(options))}: no effect for a run of {task}")

"""One training run of any task: checks, stage, training loop, predictions and metrics."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

import torch
from torch import nn

from longtail.data.dataset import Split, TrainingData
from longtail.errors import InputError
from longtail.methods import Method, smooth_labels
from longtail.models import merge_lora
from longtail.training.begin import begin_run, run_folder
from longtail.training.config import Config
from longtail.training.distributed import (
    launch,
    named_lost_processes,
    on_first,
    settle_processes,
)
from longtail.training.interrupts import said_where_it_stopped
from longtail.training.loggers import check_logger
from longtail.training.stages import Stage, errors_named
from longtail.training.task import AnyConfig, AnyRun, Data, Task


def train_run(
    task: Task[AnyConfig, Data, AnyRun],
    config: AnyConfig,
    folder: Path | None,
    *,
    resume: bool = False,
    accept_replaced: bool = False,
    dataset: Data | None = None,
) -> AnyRun:
    """Trains, predicts and evaluates a run; everything is written into the run folder.

    Args:
        task: the task.
        config: settings of the run.
        folder: the run folder; None: a new one under `runs/`.
        resume: resume the run in the folder; a finished one is left unchanged.
        accept_replaced: with `resume`, accept image files that have changed.
        dataset: the data set of `config.data`, if already loaded.

    Raises:
        InputError: for invalid settings or data, before anything is written.
        LostProcessError: when another process of the run has ended.
    """
    dataset = task.load(config.data) if dataset is None else dataset
    how = {"resume": resume, "accept_replaced": accept_replaced}
    # Before the given models are read: they are needed no more, and may be gone.
    if resume and folder and task.runs.has_ended(folder):
        settled = settle_common(task.settle(config, dataset), dataset)
        return begin_run(task, folder, settled, dataset, **how)
    prepared = prepare(task, config, dataset)
    config, method = prepared.config, prepared.method
    fabric = launch(config)
    with named_lost_processes(fabric), ExitStack() as stack:

        def begin() -> AnyRun:
            own = stack.enter_context(run_folder(folder, config))
            stack.enter_context(said_where_it_stopped(own))
            return begin_run(task, own, config, dataset, **how)

        run = on_first(fabric, begin)
        if on_first(fabric, lambda: run.finished):
            return run
        stage, model = prepared.stage, prepared.stage_model
        if stage and stage.trained and model:
            below: Any = stage.config
            how["resume"] = True
            trained = train_run(task, below, run.folder / stage.name, dataset=dataset, **how)
            if below.tune == "head":  # by one process; the solver may have made another head
                model = trained.model()
            else:
                model.load_state_dict(on_first(fabric, lambda: trained.model().state_dict()))
        if model:  # rebuilt with the weights, which it may copy, and on the device
            method = make_method(task, config, dataset, model.to(fabric.device))
        method.to(fabric.device)  # without epochs, nothing else moves it
        task.train(fabric, run, config, dataset, method)
        merge_lora(method.model.backbone)
        task.finish(fabric, run, config, dataset, method)
    return run


@dataclass(frozen=True)
class Prepared(Generic[AnyConfig]):
    """A run that has been checked and can start.

    Args:
        config: settings, without `auto`.
        method: the method, with a stage that is not yet trained.
        stage: the stage, if the run has one.
        stage_model: model of the stage: the trained one if given, else one of its architecture.
    """

    config: AnyConfig
    method: Method
    stage: Stage | None = None
    stage_model: nn.Module | None = None


def prepare(
    task: Task[AnyConfig, Data, AnyRun], config: AnyConfig, dataset: Data
) -> Prepared[AnyConfig]:
    """Checks a run with its stages by building everything once, without writing anything.

    Raises:
        InputError: for invalid settings or data; those of a stage are named as such.
    """
    config = settle_common(task.settle(config, dataset), dataset)
    stage = Stage.of(config, task.methods)
    model: nn.Module | None = None
    if stage and stage.trained:
        below: Any = stage.config
        with errors_named(f"{stage.name}_stage"):
            first = prepare(task, below, dataset).method.model
            merge_lora(first.backbone)  # like the model of a finished run
            model = first
    elif stage:
        found = [task.trained(given, config.trusted) for given in stage.given]
        for given, trained in zip(stage.given, found, strict=True):
            stage.check(given, trained.model_card(), dataset.class_names)
        with errors_named(f"{stage.name} {', '.join(stage.given)}"):
            model = task.combined([trained.model() for trained in found])
    method = make_method(task, config, dataset, model)
    trains = any(p.requires_grad for p in method.parameters())
    if trains and not config.epochs:
        raise InputError("epochs must be 1 or more, got 0")
    if config.epochs and not trains:
        name = config.method["name"]
        raise InputError(
            f"method {name!r} has nothing to train: epochs must be 0, got {config.epochs}"
        )
    return Prepared(config, method, stage, model)


def make_method(
    task: Task[AnyConfig, Data, Any], config: AnyConfig, dataset: Data, model: nn.Module | None
) -> Method:
    """The method of a run, see `Task.make_method`, with its label smoothing."""
    method = task.make_method(config, dataset, model)
    smooth_labels(method, config.method["name"], config.label_smoothing)
    return method


def settle_common(config: AnyConfig, dataset: TrainingData[Split]) -> AnyConfig:
    """Settles the common settings: batch size, logger, precision, average, number of processes.

    Raises:
        InputError: when one of them does not fit.
    """
    images = len(dataset.train)
    if config.batch_size > images:
        raise InputError(
            f"batch_size must not exceed the {images} training images, got {config.batch_size}"
        )
    check_logger(config.logger)
    config = replace(config, precision=precision_of(config), ema=config.ema or 0.0)
    return settle_processes(config, min(len(split) for split in dataset.splits.values()))


def precision_of(config: Config) -> str:
    """Precision of a run; `auto` is bf16 if the hardware supports it."""
    if config.precision != "auto":
        return config.precision
    return "bf16-mixed" if has_bf16(config.device) else "32-true"


def has_bf16(device: str) -> bool:
    """Whether the hardware computes in bfloat16."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))

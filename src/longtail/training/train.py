"""One training run: data, teacher, fit, predictions, figures."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from longtail.augment import named_view
from longtail.data import Dataset, load
from longtail.errors import InputError
from longtail.files import whole_file, write_json
from longtail.methods import Method, find_method
from longtail.models import ImageClassifier, merge_lora
from longtail.training.config import Config
from longtail.training.evaluate import judge
from longtail.training.input import evaluation_crop, evaluation_loader, training_input
from longtail.training.loggers import check_logger
from longtail.training.loop import fit, predict_logits
from longtail.training.processes import (
    AnyConfig,
    launch,
    on_first,
    rows_of_all,
    settle_processes,
)
from longtail.training.run import Predictions, Run
from longtail.training.stages import Earlier, expressed_after_sampling, make_method

if TYPE_CHECKING:  # it takes seconds to import, and only a training needs it
    from lightning_fabric import Fabric


def train_run(
    config: Config, folder: Path, *, resume: bool = False, dataset: Dataset | None = None
) -> Run:
    """Trains, predicts and judges; everything lands in the run folder.

    Args:
        config: the settings.
        folder: of the run.
        resume: go on with the run that the folder holds; a finished one is left as it is.
        dataset: `config.data`, when it is loaded already.

    Raises:
        ValueError: for settings or data that cannot work, before anything is written.
    """
    dataset = dataset or load(config.data)
    config = settle(config, dataset)
    earlier = Earlier.of(config)
    stage = None
    # Everything is made once before the first file is written: what cannot be is named here.
    before: ImageClassifier | None = None
    if earlier and earlier.given == "train":
        with earlier.naming():
            stage = settle(earlier.config, dataset)
            Earlier.of(stage)  # refuses what it has no use for
            # Without LoRA: a run's model is saved with its backbone as an ordinary one.
            before = make_method(replace(stage, tune="all"), dataset.prior).model
    elif earlier:
        finished = Run(earlier.given)
        earlier.check_run(finished, dataset.class_names)
        before = finished.model()
    method = make_method(config, dataset.prior, before)
    trains = any(p.requires_grad for p in method.parameters())
    if trains != bool(config.epochs):
        rule = "must be 1 or more," if trains else "must be 0, since it trains nothing,"
        raise InputError(f"epochs {rule} got {config.epochs}, method {config.method['name']!r}")
    fabric = launch(config)
    folder = fabric.broadcast(folder)
    run = on_first(fabric, lambda: begin_run(folder, config, resume))
    if on_first(fabric, lambda: run.finished):
        return run
    if earlier and stage and before:
        trained = train_run(stage, folder / earlier.name, resume=True, dataset=dataset)
        before.load_state_dict(on_first(fabric, lambda: trained.model().state_dict()))
    if before:  # made again with the weights, which it may copy, and on the device
        method = make_method(config, dataset.prior, before.to(fabric.device))
    method.to(fabric.device)  # without epochs, nothing else moves it
    loader, views = training_input(dataset, config, method.num_views, fabric)
    on_first(fabric, lambda: _write_split(folder / "split.csv", dataset))
    if config.epochs:
        fit(fabric, method, loader, views, config, run)
    _finish(fabric, run, config, dataset, method)
    return run


def settle(config: Config, dataset: Dataset) -> Config:
    """Replaces every `auto` by what it stands for, and checks what needs the data.

    Raises:
        ValueError: when method, views, batch size or logger do not fit.
    """
    backbone = config.backbone
    if backbone == "auto":
        small = "smallnet" if dataset.image_size <= 16 else "resnet32"
        backbone = small if dataset.image_size <= 64 else "resnet50"
    found = find_method(config.method["name"])
    num_views = found.num_views if issubclass(found, Method) else 1
    if config.mix != "none" and issubclass(found, Method) and not found.mixes:
        raise InputError(
            f"mix must be none for method {config.method['name']!r}, which has no view for the "
            f"classifier alone, got {config.mix!r}"
        )
    if len(config.views) not in (1, num_views):
        raise InputError(
            f"views must be one name, or {num_views} for method {config.method['name']!r}, "
            f"got {config.views}"
        )
    for name in config.views:
        named_view(name, dataset.image_size)
    fewest = min(len(split) for split in dataset.splits.values())
    config = settle_common(config, len(dataset.train))
    return replace(settle_processes(config, fewest), backbone=backbone)


def settle_common(config: AnyConfig, images: int) -> AnyConfig:
    """What every run settles: the precision, a batch no larger than the training set, the logger.

    Raises:
        ValueError: when one of them does not fit.
    """
    if config.batch_size > images:
        raise InputError(
            f"batch_size must not exceed the {images} training images, got {config.batch_size}"
        )
    check_logger(config.logger)
    if config.precision != "auto":
        return config
    return replace(config, precision="bf16-mixed" if has_bf16(config.device) else "32-true")


def has_bf16(device: str) -> bool:
    """Whether the hardware computes in bfloat16."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def begin_run(folder: Path, config: Config, resume: bool) -> Run:
    """Makes the run folder, or opens it to go on with the same settings.

    Raises:
        ValueError: when the folder holds a run and `resume` is not set, or its settings differ.
    """
    # By way of JSON, so that what was read from the file compares with what is asked for.
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    if not (folder / "config.yaml").is_file():
        return Run.create(folder, settings)
    run = Run(folder)
    if not resume:
        raise InputError(
            f"{folder} holds a run already: --resume goes on with it, --out names another folder"
        )
    other = run.differences(settings)
    if other:
        raise InputError(f"{folder} cannot go on with other settings: {'; '.join(other)}")
    if not run.finished:
        run.go_on(settings)
    return run


def _write_split(path: Path, dataset: Dataset) -> None:
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("path", "label", "split"))
        writer.writerows(dataset.split_table())


def _finish(fabric: "Fabric", run: Run, config: Config, dataset: Dataset, method: Method) -> None:
    """Predicts with all processes; the first saves the model, its predictions and figures."""
    merge_lora(method.model.backbone)
    crop = evaluation_crop(dataset)
    sampling = config.sampling if config.epochs else "shuffle"  # nothing was drawn
    expresses = expressed_after_sampling(method.expresses, dataset.prior, sampling)
    about = {
        "data": dataset.name,
        "method": config.method["name"],
        "backbone": config.backbone,
        "head": method.model.head_name,
        "image_size": crop.size,
        "margin": crop.margin,
        "class_names": dataset.class_names,
        "class_counts": dataset.prior.counts.tolist(),
        "expresses": expresses,
    }
    part = "test" if dataset.test is not None else "val"
    rows: dict[str, Tensor] = {}
    if part in dataset.splits:
        loader = evaluation_loader(
            dataset.splits[part],
            crop,
            fabric.device,
            config.data.workers,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        rows = rows_of_all(fabric, loader, predict_logits(method.model, loader))

    def write() -> None:
        run.save_model(method.model, about)
        figures: dict[str, Any] = {}
        if rows:
            predictions = Predictions(
                **rows,
                paths=dataset.splits[part].paths,
                class_names=dataset.class_names,
                prior=dataset.prior,
                expressed=expresses,
                name=dataset.name,
                split=part,
            )
            predictions.write(run.folder / "predictions.parquet")
            figures = {**judge(predictions), "split": part, "selection": "last epoch"}
        # The figures are written last: they say that the training has ended.
        write_json(run.folder / "metrics.json", figures)

    on_first(fabric, write)

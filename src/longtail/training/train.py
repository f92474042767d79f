"""One training run: data, teacher, fit, predictions, figures."""

import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from longtail.augment import named_view
from longtail.data import Dataset, load
from longtail.files import write_text
from longtail.methods import Method, create_method, find_method
from longtail.models import ImageClassifier, create_backbone, create_head
from longtail.training.config import Config
from longtail.training.evaluate import judge
from longtail.training.input import evaluation_crop, evaluation_loader, training_input
from longtail.training.loop import fit, predict_logits
from longtail.training.run import Predictions, Run

# The classifier's part of GML's loss alone: what the paper trains its teachers with.
TEACHER_METHOD = {"name": "logit_adjust", "head": "cosine"}
MAY_DIFFER = {"device", "precision", "checkpoint_every"}  # between a run and its resumption


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
    stage = settle(_stage(config), dataset) if config.teacher == "train" else None
    # Everything is made once before the first file is written: what cannot be is named here.
    torch.manual_seed(config.seed)
    backbone = create_backbone(config.backbone, pretrained=config.pretrained)
    teacher = _untrained(stage, dataset) if stage else _given_teacher(config, dataset)
    settings = {key: value for key, value in config.method.items() if key != "name"}
    method = create_method(config.method["name"], settings, dataset.prior, backbone, teacher)
    run = open_run(folder, config, resume)
    if run.finished:
        return run
    if stage and teacher:
        trained = train_run(stage, folder / "teacher", resume=True, dataset=dataset)
        teacher.load_state_dict(trained.model().state_dict())
    from lightning_fabric import Fabric  # takes seconds to import

    fabric = Fabric(accelerator=config.device, devices=1, precision=config.precision)  # type: ignore[arg-type]
    if teacher:
        teacher.to(fabric.device)  # no part of the method's state, which moves by itself
    loader, views = training_input(dataset, config, method.num_views, fabric.device)
    write_text(folder / "split.csv", _split_csv(dataset))
    fit(fabric, method, loader, views, config, run)
    _finish(run, config, dataset, method, fabric.device)
    return run


def settle(config: Config, dataset: Dataset) -> Config:
    """Replaces every `auto` by what it stands for, and checks what needs the data.

    Raises:
        ValueError: when method, views, batch size or teacher do not fit.
    """
    backbone, precision = config.backbone, config.precision
    if backbone == "auto":
        small = "smallnet" if dataset.image_size <= 16 else "resnet32"
        backbone = small if dataset.image_size <= 64 else "resnet50"
    if precision == "auto":
        precision = "bf16-mixed" if has_bf16(config.device) else "32-true"
    found = find_method(config.method["name"])
    num_views = found.num_views if issubclass(found, Method) else 1
    if len(config.views) not in (1, num_views):
        raise ValueError(
            f"views must be one name, or {num_views} for method {config.method['name']!r}, "
            f"got {config.views}"
        )
    if config.teacher != "none" and not (issubclass(found, Method) and found.wants_teacher):
        raise ValueError(
            f"method {config.method['name']!r} has no use for a teacher: --teacher none"
        )
    if config.batch_size > len(dataset.train):
        raise ValueError(
            f"batch_size must not exceed the {len(dataset.train)} training images, "
            f"got {config.batch_size}"
        )
    for name in config.views:
        named_view(name, dataset.image_size)
    return replace(config, backbone=backbone, precision=precision)


def has_bf16(device: str) -> bool:
    """Whether the hardware computes in bfloat16."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def open_run(folder: Path, config: Config, resume: bool) -> Run:
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
        raise ValueError(
            f"{folder} holds a run already: --resume goes on with it, --out names another folder"
        )
    before = run.config
    other = [
        f"{name} was {before.get(name)!r} and is {value!r}"
        for name, value in settings.items()
        if name not in MAY_DIFFER and before.get(name) != value
    ]
    if other:
        raise ValueError(f"{folder} cannot go on with other settings: {'; '.join(other)}")
    return run


def _given_teacher(config: Config, dataset: Dataset) -> ImageClassifier | None:
    """The model of the run that the settings name as teacher, if they name one."""
    if config.teacher in ("none", "train"):
        return None
    run = Run(config.teacher)
    names = tuple(run.model_card()["class_names"])
    if names != dataset.class_names:
        raise ValueError(f"teacher {run.folder} was trained on other classes: {names[:5]} ...")
    return run.model()


def _stage(config: Config) -> Config:
    """The settings of the teacher's training: the run's, but for those that say otherwise."""
    changes: dict[str, Any] = {"method": TEACHER_METHOD, **config.teacher_stage}
    return replace(config, teacher="none", teacher_stage={}, **changes)


def _untrained(stage: Config, dataset: Dataset) -> ImageClassifier:
    """The network that the teacher's stage trains."""
    backbone = create_backbone(stage.backbone)
    head = stage.method.get("head", "linear")
    return ImageClassifier(backbone, create_head(head, backbone.num_features, dataset.num_classes))


def _split_csv(dataset: Dataset) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split"))
    writer.writerows(dataset.split_table())
    return text.getvalue()


def _finish(
    run: Run, config: Config, dataset: Dataset, method: Method, device: torch.device
) -> None:
    """Saves the model and its predictions, and judges them; the figures are written last."""
    crop = evaluation_crop(dataset)
    run.save_model(
        method.model,
        {
            "data": dataset.name,
            "method": config.method["name"],
            "backbone": config.backbone,
            "head": method.model.head_name,
            "image_size": crop.size,
            "margin": crop.margin,
            "class_names": dataset.class_names,
            "class_counts": dataset.prior.counts.tolist(),
            "expresses": method.expresses,
        },
    )
    part = "test" if dataset.test is not None else "val"
    figures: dict[str, Any] = {}
    if part in dataset.parts:
        split = dataset.parts[part]
        loader = evaluation_loader(split, crop, device, config.data.workers)
        predictions = Predictions(
            **predict_logits(method.model, loader),
            paths=split.paths,
            class_names=dataset.class_names,
            prior=dataset.prior,
            expressed=method.expresses,
            name=dataset.name,
            split=part,
        )
        predictions.write(run.folder / "predictions.parquet")
        figures = {**judge(predictions), "split": part, "selection": "last epoch"}
    write_text(run.folder / "metrics.json", json.dumps(figures, indent=1) + "\n")

"""One segmentation run: data, teacher, fit, confusion matrix, figures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from longtail.data.segmentation import PixelDataset, load_pixels
from longtail.files import write_text
from longtail.methods import find_method
from longtail.methods.segmentation import PixelMethod, create_pixel_method
from longtail.metrics import segmentation_metrics
from longtail.models import Segmenter, create_dense_backbone
from longtail.shift import resolve_prior
from longtail.training.loop import fit
from longtail.training.segmentation.config import PixelConfig
from longtail.training.segmentation.evaluate import save_samples
from longtail.training.segmentation.input import AS_THEY_ARE, evaluation_pairs, training_pairs
from longtail.training.segmentation.predict import confusion_of, target_of
from longtail.training.segmentation.run import PixelRun
from longtail.training.train import TEACHER_METHOD, has_bf16, open_run


def train_pixels(
    config: PixelConfig, folder: Path, *, resume: bool = False, dataset: PixelDataset | None = None
) -> PixelRun:
    """Trains, predicts and judges; everything lands in the run folder.

    Args:
        config: the settings.
        folder: of the run.
        resume: go on with the run that the folder holds; a finished one is left as it is.
        dataset: `config.data`, when it is loaded already.

    Raises:
        ValueError: for settings or data that cannot work, before anything is written.
    """
    dataset = dataset or load_pixels(config.data)
    config = settle(config, dataset)
    run = PixelRun(open_run(folder, config, resume).folder)
    if run.finished:
        return run
    teacher = _teacher(config, folder, dataset)
    fabric = Fabric(accelerator=config.device, devices=1, precision=config.precision)  # type: ignore[arg-type]
    torch.manual_seed(config.seed)
    with fabric.init_module():
        method = create_pixel_method(
            config.method["name"],
            {key: value for key, value in config.method.items() if key != "name"},
            dataset.prior,
            dataset.image_prior,
            create_dense_backbone(
                config.backbone, decoder=config.decoder, pretrained=config.pretrained
            ),
            teacher,
        )
    loader = training_pairs(dataset, config, fabric.device)
    fit(fabric, method, loader, AS_THEY_ARE, config, run)
    _finish(run, config, dataset, method, fabric.device)
    return run


def settle(config: PixelConfig, dataset: PixelDataset) -> PixelConfig:
    """Replaces every `auto` by what it stands for, and checks what needs the data.

    Raises:
        ValueError: when batch size or teacher do not fit.
    """
    found = find_method(config.method["name"], "segmentation")
    if config.teacher != "none" and not getattr(found, "wants_teacher", False):
        raise ValueError(
            f"method {config.method['name']!r} has no use for a teacher: --teacher none"
        )
    if config.batch_size > len(dataset.train):
        raise ValueError(
            f"batch_size must not exceed the {len(dataset.train)} training images, "
            f"got {config.batch_size}"
        )
    if config.precision == "auto":
        config = replace(config, precision="bf16-mixed" if has_bf16(config.device) else "32-true")
    return config


def _teacher(config: PixelConfig, folder: Path, dataset: PixelDataset) -> Segmenter | None:
    """The teacher that the settings ask for: none, that of a finished run, or one trained now."""
    if config.teacher == "none":
        return None
    if config.teacher != "train":
        run = PixelRun(config.teacher)
        names = tuple(run.model_card()["class_names"])
        if names != dataset.class_names:
            raise ValueError(f"teacher {run.folder} was trained on other classes: {names[:5]} ...")
        return run.model()
    stage: dict[str, Any] = {"method": TEACHER_METHOD, **config.teacher_stage}
    teacher_config = replace(config, teacher="none", teacher_stage={}, **stage)
    return train_pixels(teacher_config, folder / "teacher", resume=True, dataset=dataset).model()


def _finish(
    run: PixelRun,
    config: PixelConfig,
    dataset: PixelDataset,
    method: PixelMethod,
    device: torch.device,
) -> None:
    """Saves the model, predicts and judges; the figures are written last."""
    run.save_model(
        method.model,
        {
            "task": config.task,
            "data": dataset.name,
            "method": config.method["name"],
            "backbone": config.backbone,
            "decoder": config.decoder,
            "head": method.model.head_name,
            "class_names": dataset.class_names,
            "class_counts": dataset.prior.counts.tolist(),
            "image_size": dataset.image_size,
            "expresses": method.expresses,
        },
    )
    figures: dict[str, Any] = {}
    part = dataset.judged
    if part is not None:
        pairs = evaluation_pairs(dataset, dataset.parts[part], device, config.data.workers)
        expressed = resolve_prior(method.expresses, dataset.prior, dataset.num_classes)
        target = target_of(config.prior_power, None, dataset.prior, dataset.class_names)
        (matrix,) = confusion_of(
            method.model,
            pairs,
            expressed,
            [target],
            window=config.window,
            flip=config.flip_test,
        )
        save_samples(run, method.model, dataset, dataset.parts[part], expressed, target)
        stored = {"split": part, "class_names": dataset.class_names, "matrix": matrix.tolist()}
        write_text(run.folder / "confusion.json", json.dumps(stored) + "\n")
        figures = {
            **segmentation_metrics(matrix, dataset.prior),
            "split": part,
            "selection": "last epoch",
        }
    write_text(run.folder / "metrics.json", json.dumps(figures, indent=1) + "\n")

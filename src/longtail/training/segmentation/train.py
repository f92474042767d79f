"""One segmentation run: data, teacher, fit, confusion matrix, figures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from longtail.augment import named_paired_view
from longtail.data.segmentation import PixelDataset, load_pixels
from longtail.files import write_text
from longtail.methods import find_method
from longtail.methods.segmentation import PixelMethod, create_pixel_method
from longtail.metrics import segmentation_metrics
from longtail.models import Segmenter, create_dense_backbone, create_dense_head
from longtail.shift import resolve_prior
from longtail.training.loop import fit
from longtail.training.processes import launch
from longtail.training.segmentation.config import PixelConfig
from longtail.training.segmentation.evaluate import save_samples
from longtail.training.segmentation.input import AS_THEY_ARE, evaluation_pairs, training_pairs
from longtail.training.segmentation.predict import confusion_of, target_of
from longtail.training.segmentation.run import PixelRun
from longtail.training.train import has_bf16, open_run

TEACHER_METHOD = {"name": "logit_adjust"}  # the classifier's part of GML's loss alone


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
    stage = settle(_stage(config), dataset) if config.teacher == "train" else None
    # Everything is made once before the first file is written: what cannot be is named here.
    torch.manual_seed(config.seed)
    backbone = create_dense_backbone(
        config.backbone, decoder=config.decoder, pretrained=config.pretrained
    )
    teacher = _untrained(stage, dataset) if stage else _given_teacher(config, dataset)
    settings = {key: value for key, value in config.method.items() if key != "name"}
    priors = dataset.priors_as_drawn(config.sampling)
    method = create_pixel_method(config.method["name"], settings, *priors, backbone, teacher)
    fabric = launch(config)
    run = PixelRun(open_run(folder, config, resume).folder)
    if run.finished:
        return run
    if stage and teacher:
        trained = train_pixels(stage, folder / "teacher", resume=True, dataset=dataset)
        teacher.load_state_dict(trained.model().state_dict())
    if teacher:
        teacher.to(fabric.device)  # no part of the method's state, which moves by itself
    loader = training_pairs(dataset, config, fabric.device)
    fit(fabric, method, loader, AS_THEY_ARE, config, run)
    _finish(run, config, dataset, method, fabric.device)
    return run


def settle(config: PixelConfig, dataset: PixelDataset) -> PixelConfig:
    """Replaces every `auto` by what it stands for, and checks what needs the data.

    Raises:
        ValueError: when batch size, crop, views or teacher do not fit.
    """
    found = find_method(config.method["name"], "segmentation")
    if config.teacher != "none" and not getattr(found, "wants_teacher", False):
        raise ValueError(
            f"method {config.method['name']!r} has no use for a teacher: --teacher none"
        )
    if dataset.train.images is None and config.crop is None:
        raise ValueError(
            "crop must be given where images are read from files: those of "
            f"{dataset.name} differ in size or are too many for memory"
        )
    if config.batch_size > len(dataset.train):
        raise ValueError(
            f"batch_size must not exceed the {len(dataset.train)} training images, "
            f"got {config.batch_size}"
        )
    named_paired_view(config.views[0], None)
    if config.precision == "auto":
        config = replace(config, precision="bf16-mixed" if has_bf16(config.device) else "32-true")
    return config


def _given_teacher(config: PixelConfig, dataset: PixelDataset) -> Segmenter | None:
    """The model of the run that the settings name as teacher, if they name one."""
    if config.teacher in ("none", "train"):
        return None
    run = PixelRun(config.teacher)
    run.check_classes(dataset.class_names, "teacher")
    return run.model()


def _stage(config: PixelConfig) -> PixelConfig:
    """The settings of the teacher's training: the run's, but for those that say otherwise."""
    changes: dict[str, Any] = {"method": TEACHER_METHOD, **config.teacher_stage}
    return replace(config, teacher="none", teacher_stage={}, **changes)


def _untrained(stage: PixelConfig, dataset: PixelDataset) -> Segmenter:
    """The network that the teacher's stage trains."""
    backbone = create_dense_backbone(stage.backbone, decoder=stage.decoder)
    head = stage.method.get("head", "linear")
    return Segmenter(backbone, create_dense_head(head, backbone.num_features, dataset.num_classes))


def _finish(
    run: PixelRun,
    config: PixelConfig,
    dataset: PixelDataset,
    method: PixelMethod,
    device: torch.device,
) -> None:
    """Saves the model, predicts and judges; the figures are written last."""
    expresses: str | list[float] = method.expresses
    if expresses == "source" and config.sampling != "shuffle":
        expresses = dataset.priors_as_drawn(config.sampling)[0].probabilities.tolist()
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
            "expresses": expresses,
        },
    )
    figures: dict[str, Any] = {}
    part = dataset.judged
    if part is not None:
        pairs = evaluation_pairs(dataset, dataset.parts[part], device, config.data.workers)
        expressed = resolve_prior(expresses, dataset.prior, dataset.num_classes)
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

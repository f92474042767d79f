"""One segmentation run: data, teacher, fit, confusion matrix, figures."""

from pathlib import Path
from typing import cast

import torch

from longtail.augment import named_paired_view
from longtail.data.segmentation import PixelDataset, load_pixels
from longtail.errors import InputError
from longtail.files import write_json
from longtail.methods.segmentation import PixelMethod, create_pixel_method
from longtail.metrics import segmentation_metrics
from longtail.models import Segmenter, create_dense_backbone
from longtail.shift import resolve_prior
from longtail.training.loop import fit
from longtail.training.processes import launch
from longtail.training.segmentation.config import PixelConfig
from longtail.training.segmentation.evaluate import save_samples
from longtail.training.segmentation.input import AS_THEY_ARE, evaluation_pairs, training_pairs
from longtail.training.segmentation.predict import confusion_of, target_of
from longtail.training.segmentation.run import PixelRun
from longtail.training.stages import Earlier
from longtail.training.train import begin_run, settle_common


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
    earlier = Earlier.of(config)
    stage = None
    # Everything is made once before the first file is written: what cannot be is named here.
    teacher: Segmenter | None = None
    if earlier and earlier.given == "train":
        with earlier.naming():
            stage = settle(cast(PixelConfig, earlier.config), dataset)
            teacher = make_method(stage, dataset).model
    elif earlier:
        finished = PixelRun(earlier.given)
        earlier.check_run(finished, dataset.class_names)
        teacher = finished.model()
    method = make_method(config, dataset, teacher)
    fabric = launch(config)
    run = PixelRun(begin_run(folder, config, resume).folder)
    if run.finished:
        return run
    if stage and teacher:
        trained = train_pixels(stage, folder / "teacher", resume=True, dataset=dataset)
        teacher.load_state_dict(trained.model().state_dict())
    if teacher:  # made again with the weights, on the device
        method = make_method(config, dataset, teacher.to(fabric.device))
    loader = training_pairs(dataset, config, fabric.device)
    fit(fabric, method, loader, AS_THEY_ARE, config, run)
    _finish(run, config, dataset, method, fabric.device)
    return run


def settle(config: PixelConfig, dataset: PixelDataset) -> PixelConfig:
    """Replaces every `auto` by what it stands for, and checks what needs the data.

    Raises:
        ValueError: when batch size, crop, views or logger do not fit, or nothing can be judged.
    """
    if dataset.train.images is None and config.crop is None:
        raise InputError(
            "crop must be given where images are read from files: those of "
            f"{dataset.name} differ in size or are too many for memory"
        )
    if dataset.judged is None:
        raise InputError(f"data of {dataset.name} must have a val or a test part to be judged on")
    named_paired_view(config.views[0], None)
    return settle_common(config, len(dataset.train))


def make_method(
    config: PixelConfig, dataset: PixelDataset, teacher: Segmenter | None = None
) -> PixelMethod:
    """Makes backbone and method of a run; the same settings always give the same weights."""
    torch.manual_seed(config.seed)
    backbone = create_dense_backbone(
        config.backbone, decoder=config.decoder, pretrained=config.pretrained
    )
    settings = {key: value for key, value in config.method.items() if key != "name"}
    priors = dataset.priors_as_drawn(config.sampling)
    return create_pixel_method(config.method["name"], settings, *priors, backbone, teacher)


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
    part = dataset.judged
    assert part  # `settle` has seen to it
    expressed = resolve_prior(expresses, dataset.prior, dataset.num_classes)
    target = target_of(config.prior_power, None, dataset.prior, dataset.class_names)
    (matrix,) = confusion_of(
        method.model,
        evaluation_pairs(dataset, dataset.splits[part], device, config.data.workers),
        expressed,
        [target],
        window=config.window,
        flip=config.flip_test,
    )
    save_samples(run, method.model, dataset, dataset.splits[part], expressed, target)
    stored = {"split": part, "class_names": dataset.class_names, "matrix": matrix.tolist()}
    write_json(run.folder / "confusion.json", stored)
    figures = segmentation_metrics(matrix, dataset.prior)
    about = {"split": part, "selection": "last epoch"}
    write_json(run.folder / "metrics.json", {**figures, **about})

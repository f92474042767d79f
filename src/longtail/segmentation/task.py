"""The task of segmentation: one class per pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn

from longtail.data.images import upright_size
from longtail.errors import InputError, NotFiniteError
from longtail.files import write_json
from longtail.methods import Method
from longtail.models.timm_backbone import check_image_size
from longtail.report import print_table
from longtail.segmentation.check import PixelFindings, check_pixels
from longtail.segmentation.config import PixelConfig
from longtail.segmentation.create import create_dense_backbone, dense_backbone_names
from longtail.segmentation.dataset import PixelDataset, load_pixels
from longtail.segmentation.evaluate import evaluate_pixels, save_samples
from longtail.segmentation.input import evaluation_pairs, training_pairs
from longtail.segmentation.layouts import PIXEL_SOURCES, PixelDataConfig
from longtail.segmentation.methods import PixelClassifier, PixelMethod, create_pixel_method
from longtail.segmentation.metrics import segmentation_metrics
from longtail.segmentation.pairs import scaled_size
from longtail.segmentation.predict import confusion_of, target_of
from longtail.segmentation.predict_files import Segmented, segment_files
from longtail.segmentation.report import PIXEL_COLUMNS, load_pixel_run, write_pixel_report
from longtail.segmentation.run import PixelRun
from longtail.segmentation.timm_model import TimmDense
from longtail.segmentation.views import PAIRED_VIEWS, named_paired_view
from longtail.shift import expressed_prior
from longtail.training import RunFolder, Task
from longtail.training.distributed import on_first
from longtail.training.input import TrainingLoader, share_of
from longtail.training.interrupts import refuse_model
from longtail.training.stages import expressed_after
from longtail.training.task import refuse_options

if TYPE_CHECKING:  # it takes seconds to import, and only training needs it
    from lightning_fabric import Fabric


UNUSABLE = -(2**48)  # in the confusion matrix of NaN logits: more than there are pixels


class Segmentation(Task[PixelConfig, PixelDataset, PixelRun]):
    """Segmentation of images."""

    name = "segmentation"
    config = PixelConfig
    data_config = PixelDataConfig
    methods = PixelMethod
    plain = PixelClassifier
    runs = PixelRun

    def catalogue(self, kind: str) -> Mapping[str, Any]:
        """See `Task.catalogue`."""
        if kind == "backbones":
            return dense_backbone_names()
        return PAIRED_VIEWS if kind == "views" else PIXEL_SOURCES

    def load(self, config: PixelDataConfig) -> PixelDataset:
        """See `Task.load`."""
        return load_pixels(config)

    def check(self, config: PixelDataConfig) -> PixelFindings:
        """See `Task.check`."""
        return check_pixels(config)

    def settle(self, config: PixelConfig, dataset: PixelDataset) -> PixelConfig:
        """See `Task.settle`."""
        if dataset.train.images is None and config.crop is None:
            raise InputError(
                f"crop must be given if images are read from files: those of {dataset.name} "
                "differ in size or do not fit in memory"
            )
        if dataset.evaluated is None:
            raise InputError(f"data of {dataset.name} must have a val or test split to evaluate on")
        named_paired_view(config.views[0], None)
        return config

    def make_method(
        self, config: PixelConfig, dataset: PixelDataset, stage_model: nn.Module | None = None
    ) -> PixelMethod:
        """See `Task.make_method`."""
        torch.manual_seed(config.seed)
        backbone = create_dense_backbone(
            config.backbone, decoder=config.decoder, pretrained=bool(config.pretrained)
        )
        if isinstance(backbone, TimmDense):
            for setting, size in _image_sizes(config, dataset).items():
                check_image_size(backbone, config.backbone, size, setting)
        settings = {key: value for key, value in config.method.items() if key != "name"}
        priors = dataset.priors_as_drawn(config.sampling)
        teacher: Any = stage_model
        return create_pixel_method(config.method["name"], settings, *priors, backbone, teacher)

    def loader(
        self, config: PixelConfig, dataset: PixelDataset, method: Method, fabric: "Fabric"
    ) -> TrainingLoader:
        """See `Task.loader`."""
        return training_pairs(dataset, config, fabric)

    def card(self, config: PixelConfig, dataset: PixelDataset, method: Method) -> dict[str, Any]:
        """See `Task.card`."""
        expresses = expressed_after(method, config.epochs)
        if expresses == "source" and config.sampling != "shuffle":
            expresses = dataset.priors_as_drawn(config.sampling)[0].probabilities.tolist()
        return {
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
        }

    def finish(
        self,
        fabric: "Fabric",
        run: RunFolder,
        config: PixelConfig,
        dataset: PixelDataset,
        method: Method,
    ) -> None:
        """See `Task.finish`; besides the model it writes a confusion matrix and samples."""
        card = self.card(config, dataset, method)
        name = dataset.evaluated
        assert name  # checked in `settle`
        model: Any = method.model
        split, classes = dataset.splits[name], dataset.class_names
        expressed = expressed_prior(card["expresses"], dataset.prior)
        target = target_of(config.prior_power, None, dataset.prior, classes)
        pairs = evaluation_pairs(
            split, dataset.reader(split), workers=config.data.workers, **share_of(fabric)
        )
        try:
            matrices = confusion_of(
                model, pairs, expressed, [target], window=config.window, flip=config.flip_test
            )
        except NotFiniteError:  # on all processes
            matrices = torch.full((1, len(classes), len(classes)), UNUSABLE)
        summed: Any = fabric.all_reduce(matrices.to(fabric.device), reduce_op="sum")
        matrix = summed[0].cpu()

        def write() -> None:
            if int(matrix.min()) < 0:
                raise refuse_model(run, model, name)
            run.save_model(model, card)
            save_samples(run, model, dataset, split, expressed, target)
            stored = {"split": name, "class_names": classes, "matrix": matrix.tolist()}
            write_json(run.folder / "confusion.json", stored)
            metrics = segmentation_metrics(matrix, dataset.prior)
            about = {"split": name, "selection": "last epoch"}
            write_json(run.folder / "metrics.json", {**metrics, **about})

        on_first(fabric, write)

    def evaluate(
        self,
        run: PixelRun,
        target_prior: str | None = None,
        *,
        split: str | None = None,
        window: Sequence[int] | None = None,
        flip: bool | None = None,
        **options: Any,
    ) -> dict[str, float]:
        """See `evaluate_pixels`."""
        refuse_options(self.name, options)
        return evaluate_pixels(run.latest(), target_prior, split=split, window=window, flip=flip)

    def predict(
        self,
        run: PixelRun,
        files: str | Path | Sequence[str | Path],
        target_prior: str | None = None,
        *,
        out: Path | None = None,
        window: Sequence[int] | None = None,
        flip: bool | None = None,
        **options: Any,
    ) -> Segmented:
        """See `segment_files`."""
        refuse_options(self.name, options)
        if out is None:
            raise InputError("out of predict must be a folder for a segmentation run, got None")
        return segment_files(run.latest(), files, out, target_prior, window=window, flip=flip)

    def print_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """See `Task.print_metrics`."""
        print_table(rows, PIXEL_COLUMNS)

    def report(self, folders: Sequence[Path], path: Path, *, pictures: bool = True) -> None:
        """See `Task.report`."""
        runs = [load_pixel_run(folder) for folder in folders]
        write_pixel_report(runs if pictures else [replace(r, samples=()) for r in runs], path)


def _image_sizes(config: PixelConfig, dataset: PixelDataset) -> dict[str, Sequence[int]]:
    """Height and width of images in training and in evaluation, by the setting that changes them.

    Of evaluated files, which may differ in size, that of the first.
    """
    assert dataset.evaluated  # checked in `settle`
    split = dataset.splits[dataset.evaluated]
    if split.images is not None:
        whole = tuple(split.images.shape[2:])
    else:
        with Image.open(split.paths[0]) as image:  # the header alone
            width, height = scaled_size(upright_size(image), dataset.image_size)
        whole = height, width
    window = [min(pair) for pair in zip(config.window or whole, whole, strict=True)]
    training = dataset.train.images
    crop = config.crop or (window if training is None else training.shape[2:])
    return {"crop": crop, "window": window}


SEGMENTATION = Segmentation()

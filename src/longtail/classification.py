"""The task of whole images: one class per image."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from longtail.augment import VIEWS, named_view
from longtail.data import BUILT_IN, DataConfig, Dataset, Findings, check_source, load
from longtail.errors import InputError
from longtail.files import write_json
from longtail.methods import Method, PlainClassifier, TauNorm, create_method, find_method
from longtail.models import (
    ImageClassifier,
    TimmBackbone,
    backbone_names,
    create_backbone,
    ensemble,
    tune_backbone,
)
from longtail.models.timm_backbone import check_image_size
from longtail.recipes import find_recipe
from longtail.report import load_run, print_table, write_report
from longtail.training import (
    Classified,
    Config,
    Predictions,
    Run,
    RunFolder,
    Task,
    Written,
    evaluate_predictions,
    predict_files,
    predict_logits,
    write_predictions,
)
from longtail.training.card import check_classes
from longtail.training.distributed import on_first, rows_of_all
from longtail.training.frozen import check_frozen, fit_frozen, frozen_features
from longtail.training.inference import split_logits
from longtail.training.input import (
    TrainingLoader,
    evaluation_crop,
    evaluation_loader,
    share_of,
    training_loader,
)
from longtail.training.interrupts import LOOKED_AT, are_usable, refuse_model
from longtail.training.mixture_head import MixtureClassifier, name_of_head
from longtail.training.model_file import ModelFile
from longtail.training.partial import predicted_now
from longtail.training.rows import check_table_name
from longtail.training.stages import expressed_after, expressed_after_sampling
from longtail.training.task import refuse_options
from longtail.training.weights import are_weights, find_file, refuse_missing

if TYPE_CHECKING:  # it takes seconds to import, and only training needs it
    from lightning_fabric import Fabric


class Classification(Task[Config, Dataset, Run]):
    """Classification of images."""

    name = "classification"
    config = Config
    data_config = DataConfig
    methods = Method
    plain = PlainClassifier
    runs = Run

    def catalogue(self, kind: str) -> Mapping[str, Any]:
        """See `Task.catalogue`."""
        if kind == "backbones":
            return backbone_names()
        return VIEWS if kind == "views" else {name: read for name, (read, _) in BUILT_IN.items()}

    def load(self, config: DataConfig) -> Dataset:
        """See `Task.load`."""
        return load(config)

    def check(self, config: DataConfig) -> Findings:
        """See `Task.check`."""
        return check_source(config)

    def trained(self, given: str, trust: Any) -> Run | ModelFile:
        """The trained model of a run folder, or of a file of weights."""
        refuse_missing(given)
        if are_weights(given):
            return ModelFile(find_file(given), trust)
        return Run(given, trust)

    def combined(self, models: Sequence[Any]) -> ImageClassifier:
        """The only model, or an ensemble."""
        return models[0] if len(models) == 1 else ensemble(models)

    def settle(self, config: Config, dataset: Dataset) -> Config:
        """See `Task.settle`."""
        tune = "all" if config.tune == "auto" else config.tune
        config = replace(config, tune=tune, pretrained=bool(config.pretrained))
        backbone = config.backbone
        if backbone == "auto":
            small = "smallnet" if dataset.image_size <= 16 else "resnet32"
            backbone = small if dataset.image_size <= 64 else "resnet50"
        method = config.method["name"]
        found = find_method(method)
        num_views = found.num_views if issubclass(found, Method) else 1
        if config.mix != "none" and issubclass(found, Method) and not found.mixes:
            raise InputError(
                f"mix must be none for method {method!r}, which has no view for the classifier "
                f"alone, got {config.mix!r}"
            )
        if len(config.views) not in (1, num_views):
            raise InputError(
                f"views must be one name, or {num_views} for method {method!r}, got {config.views}"
            )
        for name in config.views:
            named_view(name, dataset.image_size)
        if config.tune == "head":  # fitted by a solver, not by epochs
            recipe = find_recipe(config.data.source, method, config.data.imbalance).settings
            if "teacher" not in config.given and config.teacher == recipe.get("teacher"):
                config = replace(config, teacher="none", teacher_stage={})
            check_frozen(config, recipe.get("method", {}))
            return replace(config, backbone=backbone, epochs=0)
        return replace(config, backbone=backbone)

    def make_method(
        self, config: Config, dataset: Dataset, stage_model: nn.Module | None = None
    ) -> Method:
        """See `Task.make_method`."""
        torch.manual_seed(config.seed)
        start = _start_of(config, dataset)
        pretrained = bool(config.pretrained) and start is None
        backbone = create_backbone(config.backbone, pretrained=pretrained)
        if isinstance(backbone, TimmBackbone):
            side = evaluation_crop(dataset).size
            check_image_size(backbone, config.backbone, (side, side), "data.image_size")
        if start:
            backbone.load_state_dict(start.backbone.state_dict())
        if config.tune != "auto":
            tune_backbone(backbone, config.tune, config.lora_rank)
        backbone.frozen = backbone.frozen or config.fixed_norm
        settings = {key: value for key, value in config.method.items() if key != "name"}
        model: Any = stage_model
        method = create_method(config.method["name"], settings, dataset.prior, backbone, model)
        if config.tune == "head":  # its head is fitted by a solver
            return method.requires_grad_(False)
        if start and not method.first_method:  # whose head is made anew
            own, other = name_of_head(method.model), name_of_head(start)
            if own != other:
                raise InputError(f"start must have the run's head, {own!r}, got {other!r}")
            method.model.head.load_state_dict(start.head.state_dict())
        return method

    def loader(
        self, config: Config, dataset: Dataset, method: Method, fabric: "Fabric"
    ) -> TrainingLoader:
        """See `Task.loader`."""
        return training_loader(dataset, config, method.num_views, fabric)

    def train(
        self, fabric: "Fabric", run: RunFolder, config: Config, dataset: Dataset, method: Method
    ) -> None:
        """See `Task.train`; a head on a frozen backbone is fitted by a solver."""
        if config.tune != "head":
            super().train(fabric, run, config, dataset, method)
            return
        features = frozen_features(dataset, method.model.backbone, config.data.workers)
        fit_frozen(method, features["train"], dataset.train.labels, dataset.prior, config)

    def card(self, config: Config, dataset: Dataset, method: Method) -> dict[str, Any]:
        """See `Task.card`."""
        drawn = (config.epochs or config.tune == "head") and not isinstance(method, TauNorm)
        sampling = config.sampling if drawn else "shuffle"
        crop = evaluation_crop(dataset)
        expressed = expressed_after(method, config.epochs)
        head = method.model.head
        mixture = head if isinstance(head, MixtureClassifier) else None
        return {
            "data": dataset.name,
            "method": config.method["name"],
            "backbone": config.backbone,
            "head": name_of_head(method.model),
            **({"keys": list(mixture.keys.shape)} if mixture else {}),
            "image_size": crop.size,
            "margin": crop.margin,
            "class_names": dataset.class_names,
            "class_counts": dataset.prior.counts.tolist(),
            "expresses": expressed_after_sampling(expressed, dataset.prior, sampling),
        }

    def finish(
        self, fabric: "Fabric", run: RunFolder, config: Config, dataset: Dataset, method: Method
    ) -> None:
        """See `Task.finish`."""
        card = self.card(config, dataset, method)
        split = dataset.evaluated
        rows = _predict_split(fabric, config, dataset, method, split) if split else {}
        few = rows or _predict_split(fabric, config, _first_images(dataset), method, "train")
        usable = are_usable(few["logits"])

        def write() -> None:
            if not usable:
                raise refuse_model(run, method.model, split or "train")
            run.save_model(method.model, card)
            metrics: dict[str, Any] = {}
            if split:
                predictions = Predictions(
                    **rows,
                    paths=dataset.splits[split].paths,
                    class_names=dataset.class_names,
                    prior=dataset.prior,
                    expressed=card["expresses"],
                    name=dataset.name,
                    split=split,
                )
                predictions.write(run.folder / "predictions.parquet")
                metrics = {**evaluate_predictions(predictions), "split": split}
            write_json(run.folder / "metrics.json", {**metrics, "selection": "last epoch"})

        on_first(fabric, write)

    def evaluate(
        self, run: Run, target_prior: str | None = None, **options: Any
    ) -> dict[str, float]:
        """See `Task.evaluate` and `evaluate_predictions`."""
        refuse_options(self.name, options)
        run = run.latest()
        predictions = run.predictions() if run.finished else predicted_now(run)
        return evaluate_predictions(predictions, target_prior)

    def predict(
        self,
        run: Run,
        files: str | Path | Sequence[str | Path],
        target_prior: str | None = None,
        *,
        out: Path | None = None,
        top: int = 5,
        path_column: str | None = None,
        root: str | Path | None = None,
        **options: Any,
    ) -> Classified | Written:
        """Classifies image files: in memory, or to a table with the `top` classes of each."""
        refuse_options(self.name, options)
        if top < 1:
            raise InputError(f"top of predict must be 1 or more, got {top}")
        given: dict[str, Any] = {"path_column": path_column, "root": root}
        if out is None:
            return predict_files(run.latest(), files, target_prior, **given)
        sources = [*([files] if isinstance(files, str | Path) else files), target_prior or ""]
        check_table_name(out, "predict", sources)
        return write_predictions(run.latest(), files, out, target_prior, top=top, **given)

    def print_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """See `Task.print_metrics`."""
        print_table(rows)

    def report(self, folders: Sequence[Path], path: Path, *, pictures: bool = True) -> None:
        """See `Task.report`."""
        write_report([load_run(folder) for folder in folders], path, pictures=pictures)


CLASSIFICATION = Classification()


def _start_of(config: Config, dataset: Dataset) -> ImageClassifier | None:
    """The model that training starts from, if the settings name a run.

    Raises:
        InputError: when it has other classes or another backbone.
    """
    if config.start is None:
        return None
    given = CLASSIFICATION.trained(config.start, config.trusted)
    card = given.model_card()
    check_classes(card, dataset.class_names, f"start {config.start}")
    if card["backbone"] != config.backbone:
        raise InputError(
            f"start must have the run's backbone, {config.backbone!r}, got {card['backbone']!r}"
        )
    return given.model()


def _predict_split(
    fabric: "Fabric", config: Config, dataset: Dataset, method: Method, split: str
) -> dict[str, Tensor]:
    """Logits, labels and index of a split, by all processes."""
    images = dataset.splits[split]
    if config.tune == "head":
        features = frozen_features(dataset, method.model.backbone, config.data.workers)
        with torch.no_grad():
            logits = method.model.head.cpu()(features[split])
        return {"logits": logits, "labels": images.labels, "index": images.index}
    if images.images is None and fabric.world_size == 1:
        model, crop, threads = method.model, evaluation_crop(dataset), config.data.workers
        logits = split_logits(model.backbone, model.head, images, crop, fabric.device, threads)
        return {"logits": logits, "labels": images.labels, "index": images.index}
    crop, workers = evaluation_crop(dataset), config.data.workers
    loader = evaluation_loader(images, crop, workers=workers, **share_of(fabric))
    return rows_of_all(fabric, loader, predict_logits(method.model, loader))


def _first_images(dataset: Dataset) -> Dataset:
    """Only the first training images, to check a model where there is no test or val split."""
    few = torch.arange(min(LOOKED_AT, len(dataset.train)))
    return replace(dataset, train=dataset.train.take(few), val=None, test=None)

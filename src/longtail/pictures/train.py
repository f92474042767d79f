"""Training on a user's own images, from features to fine-tuning."""

import os
import shlex
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from longtail import tasks
from longtail.classification import CLASSIFICATION
from longtail.data import DataConfig, Dataset, load
from longtail.data.images import SMALL
from longtail.data.load import is_own_source, read_source
from longtail.data.paths import is_url
from longtail.data.records import Records, to_dataset
from longtail.data.stratified import hold_out
from longtail.errors import InputError
from longtail.files import read_values, write_json
from longtail.losses import ClassificationLoss
from longtail.methods import find_method
from longtail.models import create_backbone, is_own_backbone
from longtail.pictures.advise import percent
from longtail.pictures.checks import warn_after, warn_before
from longtail.pictures.compare import (
    CANDIDATES,
    cross_validate,
    recommend,
    tempered_log_loss,
)
from longtail.pictures.plan import TRIAL, describe, duration, make_plan
from longtail.pictures.settings import (
    FINE_TUNING,
    OPEN,
    are_own_images,
    fine_tunes_method,
    fine_tuning,
    may_use_features,
    resolve,
)
from longtail.recipes import TWO_STAGES, find_recipe
from longtail.text import printable
from longtail.training import Config, Run, RunFolder, is_first
from longtail.training.begin import (
    check_resumes,
    check_without_settings,
    resume_split,
    run_folder,
    same_source,
)
from longtail.training.command import data_options, method_options, options
from longtail.training.config import STAGES, changed_settings
from longtail.training.distributed import device_of
from longtail.training.frozen import frozen_features
from longtail.training.given_models import given_models
from longtail.training.interrupts import said_where_it_stopped
from longtail.training.progress import LOGGER, progress_bar
from longtail.training.reference import keep_reference
from longtail.training.run import DECISIONS, settings_file
from longtail.training.split_record import write_split
from longtail.training.train import prepare
from longtail.training.unused import check_used

CHOICES = tuple(c for c in CANDIDATES if c.method in ("logit_adjust", "lade", "gml"))
PLAIN = "ce"
DEFAULT = {"name": CHOICES[0].method}  # logit adjustment
FOLDS = 3
# Images times features times classes up to which methods are compared before one is chosen.
COMPARABLE = 5e9


def train(
    config: Config,
    folder: str | Path | None,
    *,
    resume: bool = False,
    accept_replaced: bool = False,
    source: Dataset | Records | None = None,
) -> RunFolder:
    """Trains a run of any task; on own images, features and a head first, then fine-tuning.

    Every stage is a run folder in the run's: `ce` (cross-entropy on the features, for comparison),
    `head` (the method on the features), `trial` (fine-tuning without the images of a validation
    split, which decides whether it pays), `start` (the head from which fine-tuning starts). The run
    itself is the head or the fine-tuned model.

    Args:
        config: the settings.
        folder: the run folder; None: a new one under `runs/`.
        resume: resume the run in the folder.
        accept_replaced: with `resume`, accept image files that have changed.
        source: the data of `config.data`, if they are already read.

    Raises:
        InputError: for invalid settings or data.
    """
    how = {"resume": resume, "accept_replaced": accept_replaced}
    named = source is None
    if named and resume and folder is not None:
        _check_found(config, Path(folder))
    if isinstance(source, Dataset):
        config = _with_size_of(config, source)
    if source is None and may_use_features(config):
        source = read_source(config.data)
    if source is not None:
        config = resolve(config, source)
    if config.task == "classification" and not resume:
        _check_used(config)
    dataset = None if source is None else _loaded(source, config.data)
    config = replace(config, pretrained=bool(config.pretrained))
    if dataset is None or not may_use_features(config):
        return _train_plainly(config, folder, dataset, **how)
    if config.devices * config.nodes > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "devices and nodes must be 1 for own images with pretrained weights, without torchrun; "
            "several processes train from scratch: --pretrained false"
        )
    with run_folder(Path(folder) if folder else None, config) as own, said_where_it_stopped(own):
        run = Training(config, dataset, own, named=named, **how).run()
        keep_reference(run, dataset)
    return run


def _check_found(config: Config, folder: Path) -> None:
    """Rejects the data of a run that is resumed if they are not found from the current folder.

    Raises:
        InputError: says how to name them.
    """
    source = config.data.source
    known = source in tasks.find_task(config.task).catalogue("data") or is_url(source)
    if known or is_own_source(source) or os.path.exists(source) or not settings_file(folder):
        return
    raise InputError(
        f"the data {source!r} of {folder} are not found from the folder {os.getcwd()}: name where "
        f"they are now, as in `longtail train PATH --resume --out {folder}`. A Dataset that was "
        "passed from Python must be passed again, with the same settings"
    )


def _check_used(config: Config) -> None:
    """Rejects given settings that a new run of classification would not use."""
    recipe = find_recipe(config.data.source, config.method["name"], config.data.imbalance)
    fine_tunes = bool(config.pretrained) and may_use_features(config)
    if fine_tunes and config.is_open("optimizer"):
        config = replace(config, optimizer=FINE_TUNING["optimizer"])
    check_used(config, recipe.settings, fine_tunes=fine_tunes)


def _with_size_of(config: Config, dataset: Dataset) -> Config:
    """The settings for a data set that was passed as an object, whose images keep their size."""
    if not may_use_features(config):
        return config
    small = dataset.train.images is not None and dataset.image_size <= SMALL
    if small and config.pretrained is None:
        size = f"{dataset.image_size} pixels"
        say([f"{dataset.name}: images of {size} in memory are trained from scratch"])
        return replace(config, pretrained=False)
    return replace(config, data=replace(config.data, image_size=dataset.image_size))


def _loaded(source: Dataset | Records, data: DataConfig) -> Dataset:
    """The data set of a source; a user's function is called again if the size differs."""
    if isinstance(source, Records):
        return to_dataset(source, data)
    return source if data.image_size in (None, source.image_size) else load(data)


def _train_plainly(
    config: Config, folder: str | Path | None, dataset: Dataset | None, **how: bool
) -> RunFolder:
    """Training from scratch, or of another task."""
    if config.method["name"] == "auto":
        config = replace(config, method={"name": "gml"})
    if config.start and config.task != "classification":
        raise InputError("start is for classification only")
    if config.task == "classification" and dataset is None:
        dataset = load(config.data)
    random = not (config.pretrained or is_own_backbone(config.backbone) or config.start)
    if config.tune in ("head", "norm", "lora") and random and config.first == "train":
        warnings.warn(
            f"the backbone has random weights, and tune {config.tune} trains few or none of them: "
            "use a backbone with pretrained weights, --start, or --tune all",
            stacklevel=2,
        )
    own = are_own_images(config) and not (folder is not None and Run.has_ended(folder))
    if dataset is not None and own:
        warn_before(config, dataset)
    run = tasks.train(config, folder, dataset=dataset, **how)
    if isinstance(run, Run) and dataset is not None and is_first():
        if own:
            warn_after(run)
        keep_reference(run, dataset)
    return run


@dataclass
class Training:
    """Training on own images, with resolved settings.

    Args:
        config: resolved settings.
        dataset: the images.
        folder: the run folder.
        resume: resume the run in the folder.
        accept_replaced: accept image files that have changed since it was started.
        named: whether a command line can name the images.
    """

    config: Config
    dataset: Dataset
    folder: Path
    resume: bool
    accept_replaced: bool = False
    named: bool = True

    def run(self) -> Run:
        """Trains, one stage after the other; a run that has ended is left as it is."""
        if Run.has_ended(self.folder):
            self._begin()
            return Run(self.folder, self.config.trusted)
        self._check_stages()
        self.decisions = self._begin()
        warn_before(self._checked(), self.dataset)
        plan = make_plan(self.config, self.dataset)
        if self.config.precision == "auto":
            precision = self.decide("precision", lambda: plan.precision)
            self.config = replace(self.config, precision=precision)
        asked = self.config.method
        tuned_with = "auto" if asked["name"] == "auto" else self._tuned(asked).method["name"]
        say(describe(self.config, self.dataset, plan, tuned_with, self.folder))
        features = frozen_features(
            self.dataset,
            create_backbone(self.config.backbone, pretrained=True),
            self.config.data.workers,
        )
        method = self.decide("method", lambda: self._choose(features["train"]))
        frozen = self._frozen(method)
        plain = self._train(
            replace(alone(frozen, {"name": PLAIN}), sampling="shuffle"), self.folder / PLAIN
        )
        epochs = self.decide("epochs", lambda: plan.epochs)
        if self.config.tune == "head" or (self.config.tune == "auto" and not epochs):
            run = self._train(frozen, self.folder)
            self._compare(run, plain)
            if self.config.tune == "auto":
                say([self._tuning_command(plan.epoch_seconds)])
            return run
        head = self._train(frozen, self.folder / "head")
        self._compare(head, plain)
        tuned = self._tuned(method)
        pays = self.config.tune != "auto" or self.decide(
            "pays", lambda: self._try(frozen, tuned, epochs)
        )
        if not pays:
            say(["fine-tuning did not pay: the head is kept"])
            return self._train(frozen, self.folder)
        start = self._start(frozen, tuned, self.folder, self.dataset)
        run = self._train(fine_tuning(start, epochs, len(self.dataset.train)), self.folder)
        self._compare(run, head)
        return run

    def _frozen(self, method: Mapping[str, Any]) -> Config:
        """Settings of the head on the features: that of the method, as far as it has one."""
        frozen = replace(self.config, tune="head", method=dict(method))
        if self.config.tune == "head":
            return frozen
        frozen = replace(frozen, label_smoothing=0.0, sam=0.0)  # which are for fine-tuning
        loss = loss_of(method)
        return alone(frozen, loss or DEFAULT) if loss or fine_tunes_method(self.config) else frozen

    def _tuned(self, method: Mapping[str, Any]) -> Config:
        """Settings of fine-tuning, without those that depend on the plan.

        Its method is the user's with `all`, `norm` or `lora`. Otherwise it is that of the head if
        that is a loss, else logit adjustment.
        """
        tuned = replace(self.config, tune="all" if self.config.tune == "auto" else self.config.tune)
        if fine_tunes_method(self.config):
            return tuned
        if self.config.label_smoothing and self.config.method["name"] == "auto":
            method = DEFAULT  # of the choices of `auto`, LADE has no label smoothing
        return replace(tuned, method=dict(method)) if loss_of(method) else alone(tuned, DEFAULT)

    def _check_stages(self) -> None:
        """Checks the settings of every stage, before features are computed.

        Raises:
            InputError: for settings that a stage does not support.
        """
        device_of(self.config)
        name = self.config.method["name"]
        method = DEFAULT if name == "auto" else self.config.method
        stages = [self._frozen(method)]
        if self.config.tune != "head":
            stages.append(fine_tuning(self._tuned(method), 1, len(self.dataset.train)))
        for stage in stages:
            prepare(CLASSIFICATION, self._fitting(stage, self.dataset), self.dataset)

    def _checked(self) -> Config:
        """Settings in which a warning is looked for."""
        if self.config.tune == "head":
            return self.config
        tuned = fine_tuning(self.config, 1, len(self.dataset.train))
        return replace(tuned, batch_size=self.config.batch_size)

    def decide(self, name: str, choose: Any) -> Any:
        """Makes a decision once; a resumed run keeps it."""
        if name not in self.decisions:
            self.decisions[name] = choose()
            write_json(self.folder / DECISIONS, self.decisions)
        return self.decisions[name]

    def _begin(self) -> dict[str, Any]:
        """Decisions of a resumed run; checks that settings and data are the same.

        Raises:
            InputError: when the folder contains a run and `resume` is not set, or its settings or
                data differ.
        """
        open_ = dict.fromkeys(filter(self.config.is_open, OPEN))
        asked = {**self.config.stored, **open_}
        path = self.folder / DECISIONS
        if not path.is_file():
            if (self.folder / "config.yaml").is_file():
                raise InputError(f"{self.folder} already holds a run: choose another --out")
            check_without_settings(self.folder, self.resume)
            write_split(self.folder, self.dataset)
            write_json(path, {"asked": asked})
            return {"asked": asked}
        check_resumes(self.folder, self.resume)
        before = asked_settings(self.folder)
        # Given models may have moved: the stages that use them compare their checksums.
        moved = dict(given_models(self.config))
        same = {
            name: asked[name] for name in moved if before.get(name) not in (None, "train", "none")
        }
        source = same_source(self.folder, before, asked)
        defaults = {**self.config.defaults, **open_}
        if other := changed_settings({**before, **same}, {**asked, **source}, defaults):
            raise InputError(
                f"{self.folder} cannot be resumed with other settings: {'; '.join(other)}"
            )
        ended, accept = Run.has_ended(self.folder), self.accept_replaced
        resume_split(self.folder, self.dataset, before, asked, accept, ended=ended)
        decisions = read_values(path)
        self._check(decisions, path)
        if source:
            same["data"] = asked["data"]
        if any(before[name] != now for name, now in same.items()):
            decisions["asked"] |= same
            write_json(path, decisions)
        return decisions

    def _check(self, decisions: dict[str, Any], path: Path) -> None:
        """Rejects a file of decisions that this class cannot have written.

        Raises:
            InputError: names the file and the entry.
        """
        methods = [dict(self.config.method), *({"name": choice.method} for choice in CHOICES)]
        valid = {
            "asked": lambda value: isinstance(value, dict),
            "method": lambda value: value in methods,
            "precision": lambda value: value in ("32-true", "bf16-mixed"),
            "epochs": lambda value: type(value) is int and value >= 0,
            "pays": lambda value: type(value) is bool,
        }
        for name, value in decisions.items():
            if name not in valid or not valid[name](value):
                raise InputError(f"{path} is not valid: {name} cannot be {value!r}")

    def _choose(self, features: torch.Tensor) -> dict[str, Any]:
        """The method: the given one, or the best in cross-validation of the training split."""
        if self.config.method["name"] != "auto":
            return self.config.method
        labels, classes = self.dataset.train.labels, self.dataset.num_classes
        few = int(torch.bincount(labels).max()) < 2
        if few or features.numel() * classes > COMPARABLE:
            return dict(DEFAULT)
        with progress_bar("methods", FOLDS * len(CHOICES)) as seen:
            rows = cross_validate(
                features, labels, classes, CHOICES, folds=FOLDS, seed=self.config.seed, seen=seen
            )
        scores = ", ".join(f"{r.candidate.name} {100 * r.balanced_accuracy:.1f}" for r in rows)
        chosen = recommend(rows).candidate
        say([f"method: {chosen.name} (balanced accuracy in cross-validation: {scores})"])
        return {"name": chosen.method}

    def _try(self, frozen: Config, tuned: Config, epochs: int) -> bool:
        """Whether fine-tuning without the validation images is better on them than the head."""
        trial = self._trial_data()
        if not trial.val:
            say(["too few images for a validation split, so fine-tuning is not tried"])
            return False
        folder = self.folder / "trial"
        head = self._train(frozen, folder / "head", trial)
        start = self._start(frozen, tuned, folder, trial)
        after = self._train(fine_tuning(start, epochs, len(trial.train)), folder, trial)
        runs = {"head": head, "fine-tuned": after}
        found = {name: run.predictions() for name, run in runs.items()}
        loss = {name: tempered_log_loss(p.logits, p.labels) for name, p in found.items()}
        scores = (
            f"{name} {100 * run.metrics['balanced_accuracy']:.1f} (log loss {loss[name]:.2f})"
            for name, run in runs.items()
        )
        say([f"validation split, balanced accuracy: {', '.join(scores)}"])
        return loss["fine-tuned"] < loss["head"]

    def _trial_data(self) -> Dataset:
        """The training split without a validation split, and that split; no test split."""
        dataset = self.dataset
        if dataset.val is not None:
            return replace(dataset, test=None)
        aside = hold_out(dataset.train.labels, 1 - TRIAL, self.config.seed)
        keep, held = (rows.nonzero().flatten() for rows in (~aside, aside))
        return replace(
            dataset, train=dataset.train.take(keep), val=dataset.train.take(held), test=None
        )

    def _start(self, frozen: Config, tuned: Config, folder: Path, dataset: Dataset) -> Config:
        """Settings of fine-tuning; from the linear head of its loss, which is fitted first."""
        loss = loss_of(tuned.method)
        if not loss or tuned.method.get("head", "linear") != "linear":
            return tuned
        start = folder / "start"
        self._train(alone(frozen, loss), start, dataset)
        return replace(tuned, start=str(start))

    def _fitting(self, config: Config, dataset: Dataset) -> Config:
        """The settings with batches that are no larger than the training split."""
        images = len(dataset.train)
        stages: dict[str, Any] = {
            name: {**stage, "batch_size": min(stage["batch_size"], images)}
            for name in STAGES
            if "batch_size" in (stage := getattr(config, name))
        }
        return replace(config, batch_size=min(config.batch_size, images), **stages)

    def _train(self, config: Config, folder: Path, dataset: Dataset | None = None) -> Run:
        dataset = dataset or self.dataset
        config, accept = self._fitting(config, dataset), self.accept_replaced
        run = tasks.train(config, folder, resume=True, accept_replaced=accept, dataset=dataset)
        assert isinstance(run, Run)
        warn_after(run)
        return run

    def _compare(self, run: Run, other: Run) -> None:
        """Logs the metrics of a run next to those of another."""
        if "balanced_accuracy" not in run.metrics:
            return
        say(
            f"{r.folder}: all {percent(r.metrics['accuracy'])}, balanced "
            f"{percent(r.metrics['balanced_accuracy'])}, few {percent(r.metrics['few'])} "
            f"({r.model_card()['method']}, {r.metrics['split']} split)"
            for r in (other, run)
        )

    def _tuning_command(self, epoch_seconds: float) -> str:
        """The command that fine-tunes as well, with the settings of this run."""
        seconds = 3 * epoch_seconds * (1 + TRIAL)
        asked, defaults = self.decisions["asked"], self.config.defaults
        given = {
            name: asked[name]
            for name in asked
            if name in self.config.given and (name in OPEN or asked[name] != defaults[name])
        }
        minutes = round(seconds / 60 + 1)
        size = create_backbone(self.config.backbone).image_size
        without = ["image_size"] if self.config.data.image_size == size else []
        words = [
            *("longtail", "train", self.config.data.source if self.named else "DATA"),
            *data_options(asked["data"], *without),
            *method_options(asked["method"]),
            *options({**given, "epochs": None, "minutes": minutes}),
            *("--out", "NEW_FOLDER"),
        ]
        return f"to fine-tune, {duration(seconds)}: {shlex.join(words)}"


def loss_of(method: Mapping[str, Any]) -> dict[str, Any]:
    """The method without settings of its head, if it is a classification loss; else empty."""
    if not issubclass(find_method(method["name"]), ClassificationLoss):
        return {}
    return {name: value for name, value in method.items() if name != "head"}


def alone(config: Config, method: Mapping[str, Any]) -> Config:
    """The settings with a method of one stage and one view in place of another."""
    one: dict[str, Any] = {
        "teacher": "none",
        "teacher_stage": {},
        "first": "train",
        "first_stage": {},
    }
    if config.method["name"] in TWO_STAGES:  # whose sampling is that of the second stage
        one["sampling"] = "shuffle"
    return replace(config, method=dict(method), views=config.views[:1], **one)


def asked_settings(folder: str | Path) -> dict[str, Any]:
    """The settings with which the run in a folder was started, even if it has no `config.yaml` yet.

    Raises:
        InputError: when the folder is not a run folder.
    """
    path = Path(folder) / DECISIONS
    if not path.is_file():
        return tasks.open_run(folder).config
    asked = read_values(path).get("asked")
    if not isinstance(asked, dict):
        raise InputError(f"{path} is not valid: it has no settings from the start of the run")
    return asked


def say(lines: Iterable[str]) -> None:
    """Logs lines in the way training progress is logged."""
    for line in lines:
        LOGGER.info(f"longtail: {printable(line)}")

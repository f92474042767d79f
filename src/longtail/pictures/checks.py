"""Warnings about a training run, each in one line with a remedy."""

import math
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from longtail.data import Dataset
from longtail.data.problems import NAMED, shown
from longtail.training import Config, Run
from longtail.training.train import has_bf16, precision_of

FEW_TESTED = 3
# Largest common rates for fine-tuning pretrained weights, times three.
LARGEST_RATE = {"sgd": 0.03, "adamw": 1e-3}
SPREAD = 10.0  # times the range of the log prior: a larger spread leaves it no effect


def warn_before(config: Config, dataset: Dataset) -> None:
    """Warns about settings and data that may not give the expected result."""
    for text in before(config, dataset):
        warnings.warn(text, stacklevel=3)


def before(config: Config, dataset: Dataset) -> Iterator[str]:
    """The warnings before training."""
    yield from _hardly_measured(dataset)
    large = len(dataset.train) < config.batch_size and not config.is_open("batch_size")
    if config.pretrained and config.tune != "head" and large:
        yield (
            f"batch_size {config.batch_size} is larger than the {len(dataset.train)} training "
            "images: it is reduced to their number"
        )
    bf16 = precision_of(config).startswith("bf16")
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    if bf16 and on_cpu and not has_bf16("cpu"):
        yield (
            "this processor emulates bfloat16, which takes many times longer: "
            "use --precision 32-true"
        )
    whole = config.tune in ("auto", "all")  # a few weights alone can use larger rates
    if config.pretrained and whole and config.lr > LARGEST_RATE[config.optimizer]:
        yield (
            f"lr {config.lr:g} with {config.optimizer} is out of range for pretrained weights, "
            "which it destroys: use --optimizer adamw --lr 2e-4"
        )


def _hardly_measured(dataset: Dataset) -> Iterator[str]:
    """Warnings about classes with few images, or none, in the split that a run is evaluated on."""
    name = dataset.evaluated
    if name is None:
        return
    classes = dataset.num_classes
    counts = torch.bincount(dataset.splits[name].labels, minlength=classes)
    none, few = counts == 0, (counts > 0) & (counts <= FEW_TESTED)
    if count := int(none.sum()):
        rest = classes - count
        mean = f"of the other {rest}" if rest > 1 else "that of the only other one"
        yield (
            f"{count} of {classes} classes have no {name} image ({_names(dataset, none)}): the "
            f"balanced accuracy is {mean}; collect {name} images of them"
        )
    if count := int(few.sum()):
        yield (
            f"{count} of {classes} classes have {FEW_TESTED} {name} images or fewer "
            f"({_names(dataset, few)}): their accuracies are little more than chance; collect more "
            f"{name} images of them"
        )


def _names(dataset: Dataset, chosen: Tensor) -> str:
    """Names of the chosen classes, at most ten of them."""
    names = [dataset.class_names[c] for c in chosen.nonzero().flatten().tolist()]
    return ", ".join(map(shown, names[:NAMED])) + (" ..." if len(names) > NAMED else "")


def warn_after(run: Run) -> None:
    """Warns about training that went wrong."""
    for text in after(run):
        warnings.warn(f"{run.folder}: {text}", stacklevel=3)


def after(run: Run) -> Iterator[str]:
    """The warnings about a finished run; none for a head that was fitted to its optimum."""
    if not run.history:
        return
    config, chance = run.config, math.log(run.prior.num_classes)
    # From random weights, losses and logits are on other scales, as the loss is with smoothing.
    pretrained = bool(config.get("pretrained"))
    on_scale = pretrained and not config.get("label_smoothing")
    if on_scale and (loss := run.history[-1].get("loss", 0.0)) > 2 * chance:
        yield (
            f"the training loss ended at {loss:.2f}, far above ln(number of classes) = "
            f"{chance:.2f}, that of a uniform guess: reduce --lr"
        )
    if not (run.folder / "predictions.parquet").is_file():
        return
    logits = run.predictions().logits
    found = torch.bincount(logits.argmax(1)).nonzero().flatten()
    if len(found) == 1 and run.prior.num_classes > 1:
        name = run.model_card()["class_names"][found[0]]
        remedy = "use --tune head" if pretrained else "train for more --epochs"
        yield f"the model predicts one class only, {name!r}: reduce --lr, or {remedy}"
    log_prior = run.prior.log_prior
    spread = (logits.amax(1) - logits.median(1).values).median()
    if pretrained and spread > SPREAD * max(1.0, float(log_prior.max() - log_prior.min())):
        yield (
            f"the largest logit of an image is typically {spread:.0f} nats above the median one, "
            "so that changing the class prior has no effect: reduce --lr, or use --tune head"
        )

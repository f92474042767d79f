"""A head on the features of a frozen backbone, fitted by the solver of `longtail.probe`."""

import inspect
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from longtail.data import Dataset
from longtail.data.samplers import POWERS
from longtail.errors import InputError
from longtail.features import fingerprint
from longtail.methods import CRT, GML, LWS, Method, PlainClassifier, TauNorm, find_method
from longtail.models import Backbone, LinearHead
from longtail.prior import ClassPrior
from longtail.probe import FittedHead, Linear, MixtureHead, fit_head
from longtail.training.config import Config
from longtail.training.embed import dataset_features
from longtail.training.input import evaluation_crop
from longtail.training.mixture_head import MixtureClassifier

# Methods with a head on fixed features, and the settings that matter to it.
SOLVED: dict[type[Method], set[str]] = {
    PlainClassifier: {"loss", "head"},
    GML: set(),
    CRT: set(),
    LWS: set(),
    TauNorm: {"tau"},
}
Features = dict[str, Tensor]  # (N, D) of each split
_known: WeakKeyDictionary[Dataset, tuple[str, Features]] = WeakKeyDictionary()


def frozen_features(dataset: Dataset, backbone: Backbone, workers: int | None = None) -> Features:
    """Features of all splits, computed once for a data set and a backbone."""
    key = fingerprint(backbone)
    known = _known.get(dataset)
    if known is None or known[0] != key:
        arrays = dataset_features(dataset, backbone, evaluation_crop(dataset), threads=workers)
        known = key, {name: torch.from_numpy(values) for name, values in arrays.items()}
        _known[dataset] = known
    return known[1]


def check_frozen(config: Config, recipe: Mapping[str, Any]) -> None:
    """Rejects settings that cannot be used with fixed features.

    Args:
        config: settings of the run.
        recipe: the recipe's settings of the method, which the user has not asked for.

    Raises:
        InputError: for a method that trains the backbone, a setting without effect on the head, a
            teacher, label smoothing or several processes.
    """
    name = config.method["name"]
    found = find_method(name)
    method = found if issubclass(found, Method) else PlainClassifier
    known = next((SOLVED[kind] for kind in SOLVED if issubclass(method, kind)), None)
    if known is None:
        raise InputError(
            f"tune must be all, norm or lora for method {name!r}, which needs a "
            "backbone that is trained; head fits any classification loss, gml, crt, lws or "
            "tau_norm"
        )
    defaults = {key: one.default for key, one in inspect.signature(method).parameters.items()}
    defaults |= recipe
    given = {key for key, value in config.method.items() if value != defaults.get(key)}
    if unused := sorted(given - {"name"} - known):
        raise InputError(
            f"{', '.join(unused)}: no effect on {name}'s head on features (tune all, norm or lora "
            "trains the method)"
        )
    own = getattr(found, "head", "linear")  # of a loss, which the user may leave open
    if (head := config.method.get("head", own)) not in ("linear", own):
        raise InputError(f"method.head must be linear for a head on features, got {head!r}")
    if config.teacher != "none":
        raise InputError(
            "teacher must be none for a head on features, which distils nothing (tune all, norm or "
            f"lora trains with a teacher), got {config.teacher!r}"
        )
    for setting in ("label_smoothing", "sam"):
        if value := getattr(config, setting):
            rule = "must be 0 for tune head, whose solver has none"
            raise InputError(f"{setting} {rule}, got {value:g}")
    if config.devices * config.nodes > 1:
        raise InputError(
            "devices and nodes must be 1 for tune head, which is fitted in one process"
        )


def fit_frozen(
    method: Method, features: Tensor, labels: Tensor, prior: ClassPrior, config: Config
) -> None:
    """Fits the head of a method on the features of its training split, in place.

    Runs L-BFGS to the optimum on standardised features, like `longtail.sklearn.LongTailClassifier`.

    Args:
        method: the method; its head is replaced.
        features: (N, D), of the training split.
        labels: (N,), class index.
        prior: class prior of the training split.
        config: method, sampling and seed.
    """
    if isinstance(method, TauNorm):  # made of its first stage
        return
    rows = sampled_rows(labels, config.sampling, config.seed)
    if isinstance(method, LWS):
        method.factor.data = fit_factors(method.first_head(features).detach()[rows], labels[rows])
        method.after_step()
        return
    name = "ce" if isinstance(method, CRT) else config.method["name"]
    settings = config.method.get("loss") if isinstance(method, PlainClassifier) else None
    fitted = fit_head(
        features[rows], labels[rows], prior, name, settings=settings, seed=config.seed
    )
    method.model.head = head_module(fitted)


def head_module(fitted: FittedHead) -> nn.Module:
    """A fitted head as the head of an `ImageClassifier`."""
    head = fitted.head
    if isinstance(head, MixtureHead):
        return MixtureClassifier.of(head)
    assert isinstance(head, Linear)
    module = LinearHead(head.weight.shape[1], head.weight.shape[0])
    module.load_state_dict({"weight": head.weight, "bias": head.bias})
    return module.requires_grad_(False)


def fit_factors(logits: Tensor, labels: Tensor) -> Tensor:
    """Factor of each class's logit that minimises cross-entropy, by L-BFGS from 1.

    Args:
        logits: (N, C).
        labels: (N,), class index.

    Returns: (C,).
    """

    def objective(factors: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scale = torch.from_numpy(factors).to(logits).requires_grad_()
        loss = F.cross_entropy(logits * scale, labels)
        (slope,) = torch.autograd.grad(loss, scale)
        return float(loss.detach()), slope.double().numpy()

    found: Any = minimize(objective, np.ones(logits.shape[1]), jac=True, method="L-BFGS-B")
    return torch.from_numpy(found.x).to(logits)


def sampled_rows(labels: Tensor, sampling: str, seed: int) -> Tensor:
    """Rows of a class-balanced sample of about as many draws as there are images.

    A class is drawn in whole passes first, so that no image is left out while others are repeated.

    Args:
        labels: (N,), class index.
        sampling: as in `Config`.
        seed: seeds the draws.

    Examples:
        >>> labels = torch.tensor([0, 0, 0, 1])
        >>> labels[sampled_rows(labels, "class_balanced", seed=0)].bincount().tolist()
        [2, 2]
    """
    if sampling == "shuffle":
        return torch.arange(len(labels))
    generator = torch.Generator().manual_seed(seed)
    counts = torch.bincount(labels)
    mass = torch.where(counts > 0, counts.double() ** POWERS[sampling], 0.0)
    wanted = (len(labels) * mass / mass.sum()).ceil().long()
    rows = []
    for label in counts.nonzero().flatten():
        members = (labels == label).nonzero().flatten()
        passes = -(-int(wanted[label]) // len(members))
        drawn = [torch.randperm(len(members), generator=generator) for _ in range(passes)]
        rows.append(members[torch.cat(drawn)[: wanted[label]]])
    return torch.cat(rows)

"""Methods compared on fixed features by stratified cross-validation."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longtail.prior import ClassPrior
from longtail.probe import fit_head
from longtail.shift import adjust, resolve_prior
from longtail.training.frozen import sampled_rows

RESAMPLES = 1000
ALIKE = 0.005  # balanced accuracies this close count as equal: the simpler method is chosen


@dataclass(frozen=True)
class Candidate:
    """A way to fit a classifier.

    Args:
        name: its name in the table.
        method: a method of `longtail.probe.fit_head`.
        after: `switch_prior` adjusts the logits to the uniform prior.
        sampling: `class_balanced` draws every class equally often.
        options: options of `longtail train` for it.
    """

    name: str
    method: str
    options: str
    after: Literal["nothing", "switch_prior"] = "nothing"
    sampling: Literal["shuffle", "class_balanced"] = "shuffle"


# In order of simplicity, which decides between equal ones.
CANDIDATES = (
    Candidate("logit adjustment", "logit_adjust", "--method logit_adjust"),
    Candidate("cross-entropy, prior switched", "ce", "--method ce", after="switch_prior"),
    Candidate("class weights", "reweighted", "--method reweighted"),
    Candidate(
        "class-balanced sampling",
        "ce",
        "--method ce --sampling class_balanced",
        sampling="class_balanced",
    ),
    Candidate("LADE", "lade", "--method lade"),
    Candidate("GML", "gml", "--method gml"),
    Candidate("cross-entropy", "ce", "--method ce"),
)


@dataclass(frozen=True)
class Row:
    """Cross-validated metrics of a candidate, as fractions; NaN if undefined.

    Args:
        candidate: the candidate.
        accuracy: share of all images classified correctly.
        balanced_accuracy: mean recall of the classes.
        interval: 95 % interval of the balanced accuracy.
        few: mean recall of the classes with fewer than 20 training images.
        worst: recall of the worst class.
        worst_class: its index.
        log_loss: log loss in nats, averaged over the classes.
        seconds: average time of a fit.
        behind: 95 % interval of the best row's balanced accuracy minus this one's, by a paired
            bootstrap over images.
    """

    candidate: Candidate
    accuracy: float
    balanced_accuracy: float
    interval: tuple[float, float]
    few: float
    worst: float
    worst_class: int
    log_loss: float
    seconds: float
    behind: tuple[float, float] = (0.0, 0.0)

    @property
    def differs(self) -> bool:
        """Whether the best row is better beyond chance."""
        return self.behind[0] > 0


def cross_validate(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    candidates: Sequence[Candidate] = CANDIDATES,
    *,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    seen: Callable[[int], None] = lambda fits: None,
) -> list[Row]:
    """Compares candidates on a training split by predictions for held-out images.

    Every class is spread over the folds as evenly as its images allow. The image of a class with
    only one is always trained on; such a class does not enter the metrics.

    Args:
        features: (N, D) float32.
        labels: (N,), class index.
        num_classes: number of classes; each has an image.
        candidates: the candidates to compare.
        folds: number of folds; at most the images of the largest class.
        repeats: repetitions with other folds.
        seed: seeds folds and sampling.
        seen: called with the number of fits since its last call.

    Returns: a row per candidate, in their order.
    """
    folds = max(2, min(folds, int(torch.bincount(labels).max())))
    right = np.zeros((len(candidates), len(labels)))
    nats = np.zeros_like(right)
    seconds = np.zeros(len(candidates))
    tested = torch.bincount(labels, minlength=num_classes)[labels] > 1
    for repeat in range(repeats):
        fold = stratified_folds(labels, folds, seed + repeat)
        for held in range(folds):
            train, test = fold != held, (fold == held) & tested
            prior = ClassPrior.from_labels(labels[train], num_classes)
            for row, candidate in enumerate(candidates):
                began = time.perf_counter()
                logits = fit_candidate(
                    candidate, features[train], labels[train], prior, seed + repeat
                )(features[test])
                seconds[row] += time.perf_counter() - began
                right[row, test.numpy()] += (logits.argmax(1) == labels[test]).numpy()
                losses = torch.nn.functional.cross_entropy(
                    logits.double(), labels[test], reduction="none"
                )
                nats[row, test.numpy()] += losses.numpy()
                seen(1)
    chosen = tested.numpy()
    return _rows(
        candidates,
        right[:, chosen] / repeats,
        nats[:, chosen] / repeats,
        labels[tested].numpy(),
        ClassPrior.from_labels(labels, num_classes),
        seconds / (repeats * folds),
        seed,
    )


def recommend(rows: Sequence[Row]) -> Row:
    """The row with the best balanced accuracy; among those within half a point, the simplest."""
    best = max(row.balanced_accuracy for row in rows)
    return next(row for row in rows if row.balanced_accuracy >= best - ALIKE)


def tempered_log_loss(logits: Tensor, labels: Tensor) -> float:
    """Log loss in nats, averaged over the classes, at the best temperature.

    It tells two classifiers of few images apart where their balanced accuracies differ by chance: a
    class with one image is either right or wrong. The temperature takes out how sure they are.

    Args:
        logits: (N, C).
        labels: (N,), class index.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
        >>> labels = torch.tensor([0, 1, 1])
        >>> [round(tempered_log_loss(scale * logits, labels), 3) for scale in (1, 4)]
        [0.36, 0.36]
    """
    weight = 1 / torch.bincount(labels)[labels].double()
    weight /= weight.sum()
    losses = [
        weight @ torch.nn.functional.cross_entropy(logits.double() / t, labels, reduction="none")
        for t in 2.0 ** torch.arange(-4, 4.01, 0.25)
    ]
    return float(min(losses))


def stratified_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Fold of each image, (N,): images of a class go to the folds in turn, from a random one on.

    Examples:
        >>> stratified_folds(torch.tensor([0, 0, 0, 0, 1, 1]), 2, seed=0).bincount().tolist()
        [3, 3]
    """
    generator = torch.Generator().manual_seed(seed)
    fold = torch.empty_like(labels)
    for label in torch.bincount(labels).nonzero().flatten():
        members = (labels == label).nonzero().flatten()
        begin = int(torch.randint(folds, (), generator=generator))
        ranks = torch.randperm(len(members), generator=generator)
        fold[members] = (ranks + begin) % folds
    # A class with one image is never held out: it would be unknown to the classifier.
    return torch.where(torch.bincount(labels)[labels] > 1, fold, -1)


def fit_candidate(
    candidate: Candidate, features: Tensor, labels: Tensor, prior: ClassPrior, seed: int
) -> Callable[[Tensor], Tensor]:
    """Fits a candidate; returns a function that computes its logits."""
    rows = sampled_rows(labels, candidate.sampling, seed)
    features, labels = features[rows], labels[rows]
    fitted = fit_head(features, labels, prior, candidate.method, seed=seed)
    if candidate.after == "nothing":
        return fitted.logits
    uniform = resolve_prior("uniform", prior, prior.num_classes)
    return lambda x: adjust(fitted.logits(x), fitted.expressed_prior, uniform)


def _rows(
    candidates: Sequence[Candidate],
    right: NDArray[np.float64],
    nats: NDArray[np.float64],
    labels: NDArray[np.int64],
    prior: ClassPrior,
    seconds: NDArray[np.float64],
    seed: int,
) -> list[Row]:
    found = np.unique(labels, return_inverse=True)
    classes, code = found
    counts = np.bincount(code)
    recall = np.stack([np.bincount(code, row) / counts for row in right])
    few = np.isin(classes, prior.groups()["few"].numpy())
    resampled = _resampled(right, code, seed)
    rows: list[Row] = []
    best = int(recall.mean(1).argmax())
    for row, candidate in enumerate(candidates):
        losses = np.bincount(code, nats[row]) / counts
        worst = int(recall[row].argmin())
        rows.append(
            Row(
                candidate,
                accuracy=float(right[row].mean()),
                balanced_accuracy=float(recall[row].mean()),
                interval=_interval(resampled[row]),
                few=float(recall[row][few].mean()) if few.any() else float("nan"),
                worst=float(recall[row].min()),
                worst_class=int(classes[worst]),
                log_loss=float(losses.mean()),
                seconds=float(seconds[row]),
                behind=_interval(resampled[best] - resampled[row]),
            )
        )
    return rows


def _resampled(
    right: NDArray[np.float64], code: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Balanced accuracies (candidates, RESAMPLES) on images drawn with replacement by class."""
    random = np.random.default_rng(seed)
    classes = int(code.max()) + 1
    total = np.zeros((len(right), RESAMPLES))
    for label in range(classes):
        members = np.flatnonzero(code == label)
        drawn = random.multinomial(len(members), np.full(len(members), 1 / len(members)), RESAMPLES)
        total += right[:, members] @ drawn.T / (len(members) * classes)
    return total


def _interval(values: NDArray[Any]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)

"""Confidence intervals of metrics, and of differences between paired runs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.metrics.confusion import Confusion
from longtail.metrics.scores import SampleScores
from longtail.prior import ClassPrior

Z = 1.959964  # 95 % of a standard normal distribution lie within this
RESAMPLES = 1000
BEST_LEVEL = 0.995  # for one column, so that a whole table of equal runs rarely has a best one
CHUNK_ELEMENTS = 2**23  # resampled samples at a time: 64 MiB of float64


def wilson_interval(hits: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """95 % interval of the probability behind `hits` out of `counts`, elementwise.

    Wilson, Probable inference, JASA 1927. Unlike the normal approximation it is valid near 0 and 1
    and for small counts: with 3 hits out of 3, anything above 44 % is possible.

    Args:
        hits: any shape, 0 to `counts`.
        counts: the same shape, independent trials.

    Returns: lower and upper bounds, float64; NaN without a trial.
    Examples:
        >>> low, high = wilson_interval(torch.tensor([3, 50]), torch.tensor([3, 100]))
        >>> [round(float(v), 3) for v in (*low, *high)]
        [0.439, 0.404, 1.0, 0.596]
    """
    hits, counts = hits.double(), counts.double()
    share = hits / counts
    centre = (share + Z**2 / (2 * counts)) / (1 + Z**2 / counts)
    spread = (share * (1 - share) / counts + Z**2 / (4 * counts**2)).sqrt()
    half = Z * spread / (1 + Z**2 / counts)
    return torch.minimum(share, centre - half), torch.maximum(share, centre + half)


def difference_interval(
    hits: tuple[float, float], counts: tuple[float, float]
) -> tuple[float, float]:
    """95 % interval of the difference of two proportions of independent samples.

    Newcombe, Interval estimation for the difference between independent proportions, Statistics in
    Medicine 1998, method 10: Wilson's bounds, their distances added in quadrature.

    Args:
        hits: hits in the first and in the second sample.
        counts: trials of both.

    Returns: bounds of the first proportion minus the second; NaN if one has no trial.
    Examples:
        >>> [round(bound, 4) for bound in difference_interval((56, 48), (70, 80))]
        [0.0524, 0.3339]
    """
    low, high = wilson_interval(torch.tensor(hits), torch.tensor(counts))
    share = torch.tensor(hits).double() / torch.tensor(counts)
    difference = share[0] - share[1]
    down = torch.hypot(share[0] - low[0], high[1] - share[1])
    up = torch.hypot(high[0] - share[0], share[1] - low[1])
    return float(difference - down), float(difference + up)


def accuracy_intervals(scores: SampleScores, prior: ClassPrior) -> dict[str, tuple[float, float]]:
    """95 % intervals of every accuracy of `classification_metrics`, for independent test samples.

    Wilson's for `accuracy`, `many`, `medium` and `few`. For `balanced_accuracy`, a mean of
    proportions, Wilson's with as many samples as have the variance of that mean.

    Examples:
        >>> from longtail.metrics import score_samples
        >>> scores = score_samples(torch.eye(2)[[0, 0, 0, 1]], [0, 0, 0, 0])
        >>> low, high = accuracy_intervals(scores, ClassPrior([500, 50]))["many"]
        >>> round(low, 2), round(high, 2)
        (0.3, 0.95)
    """
    confusion = Confusion.from_scores(scores)
    intervals = {}
    everything = torch.arange(prior.num_classes)
    for name, members in {"accuracy": everything, **prior.groups()}.items():
        hits, count = confusion.hits[members].sum(), confusion.support[members].sum()
        low, high = wilson_interval(hits, count)
        intervals[name] = float(low), float(high)
    intervals["balanced_accuracy"] = _mean_interval(confusion)
    return intervals


def _mean_interval(confusion: Confusion) -> tuple[float, float]:
    """95 % interval of the mean recall of the classes that have a sample."""
    present = confusion.support > 0
    recall, support = confusion.recall()[present], confusion.support[present].double()
    mean = recall.mean()
    # Unbiased; for a single sample, which has none, the largest possible variance.
    variances = torch.where(support > 1, recall * (1 - recall) / (support - 1).clamp(min=1), 0.25)
    variance = variances.sum() / len(recall) ** 2
    # At most 4 times the samples: if every recall is 0 or 1, the estimated variance is 0.
    count = (mean * (1 - mean) / variance).clamp(max=4 * float(support.sum()))
    if not count > 0:  # all recalls are 0, or all are 1
        count = support.sum()
    low, high = wilson_interval(mean * count, count)
    return float(low), float(high)


def resampled_metrics(
    runs: Sequence[SampleScores], prior: ClassPrior, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Tensor]:
    """Metrics of runs on the same resampled test sets: the paired bootstrap over samples.

    Args:
        runs: scores of R runs on the same samples, in the same order.
        prior: class prior of the training set, which defines the groups.
        resamples: number of test sets drawn with replacement.
        seed: the same seed draws the same test sets.

    Returns: (R, resamples) float64 by metric name; NaN if a resample has no sample of a group.
    Raises:
        ValueError: when the runs have different labels.
    Examples:
        >>> from longtail.metrics import score_samples
        >>> scores = score_samples(torch.eye(2)[[0, 0, 1, 1]], [0, 0, 1, 0])
        >>> resampled_metrics([scores, scores], ClassPrior([9, 1]))["accuracy"].shape
        torch.Size([2, 1000])
    """
    labels = runs[0].labels
    if not all(torch.equal(run.labels, labels) for run in runs):
        raise InputError("runs of resampled_metrics must have the same labels in the same order")
    count = len(labels)
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, CHUNK_ELEMENTS // max(count, prior.num_classes))
    chunks: list[list[dict[str, Tensor]]] = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = torch.randint(count, (size, count), generator=generator)
        weights = torch.zeros(size, count, dtype=torch.float64)
        weights.scatter_add_(1, drawn, torch.ones((), dtype=torch.float64).expand_as(drawn))
        chunks.append([_weighted_metrics(weights, run, prior) for run in runs])
    return {
        name: torch.stack(
            [torch.cat([chunk[run][name] for chunk in chunks]) for run in range(len(runs))]
        )
        for name in chunks[0][0]
    }


def best_run(resampled: Tensor, values: Sequence[float], higher: bool = True) -> int | None:
    """The run that is significantly better than every other one, if there is one.

    Args:
        resampled: (R, resamples), a metric of `resampled_metrics`.
        values: the metric of each run on the test set itself.
        higher: whether higher is better.

    Returns: its position, if the intervals at the level `BEST_LEVEL` of its differences from all
        other runs exclude zero; else None.
    """
    ranked = torch.tensor([value if higher else -value for value in values])
    if len(ranked) < 2 or not bool(ranked.isfinite().all()):
        return None
    best = int(ranked.argmax())
    sign = 1 if higher else -1
    gains = sign * (resampled[best] - resampled)
    others = [run for run in range(len(ranked)) if run != best]
    lowest = torch.stack([gains[run].nanquantile((1 - BEST_LEVEL) / 2) for run in others])
    return best if bool((lowest > 0).all()) else None


def _weighted_metrics(weights: Tensor, run: SampleScores, prior: ClassPrior) -> dict[str, Tensor]:
    """Metrics of a run under (resamples, N) weights of its samples."""
    correct = run.correct.double()
    right = weights * correct

    def totals(places: Tensor, values: Tensor, size: int) -> Tensor:
        return torch.zeros(len(values), size, dtype=torch.float64).index_add_(1, places, values)

    classes = run.num_classes
    hits, support = (totals(run.labels, values, classes) for values in (right, weights))
    predicted = totals(run.predicted, weights, classes)
    groups = {
        name: hits[:, members].sum(1) / support[:, members].sum(1)
        for name, members in prior.groups().items()
    }
    edges = torch.linspace(0, 1, run.bins + 1, dtype=torch.float64)[1:-1]
    gaps = totals(
        torch.bucketize(run.confidence, edges), weights * run.confidence - right, run.bins
    )
    total = len(run.labels)
    return {
        "accuracy": right.sum(1) / total,
        **groups,
        "balanced_accuracy": (hits / support).nanmean(1),
        "macro_f1": (2 * hits / (support + predicted)).nanmean(1),
        "ece": gaps.abs().sum(1) / total,
        "nll": weights @ run.nll / total,
        "brier": weights @ run.brier / total,
    }

"""Metrics of a classifier, overall and by class frequency."""

from numpy.typing import ArrayLike
from torch import Tensor

from longtail.errors import InputError
from longtail.metrics.calibration import CalibrationCurve, classwise_ece
from longtail.metrics.confusion import Confusion
from longtail.metrics.scores import BINS, SampleScores, score_samples
from longtail.prior import ClassPrior, check_prior


def classification_metrics(
    logits: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    prior: ClassPrior,
    *,
    bins: int = BINS,
) -> dict[str, float]:
    """Accuracy overall and for many, medium and few, macro-F1, calibration and proper scores.

    `many`, `medium` and `few` are accuracies over the *samples* of a group's classes, grouped by
    training count (`ClassPrior.groups`), so that they average to `accuracy` on any test set. On a
    test set with the same number of samples per class, as in the benchmarks, this is the mean
    recall of the group's classes, which the code of Liu et al. (CVPR 2019) and its followers print.
    `macro_f1` is the mean over the classes that occur in the test set or are predicted, like
    scikit-learn's `f1_score(average="macro")`; `macro_f1_classes` is their number.
    `balanced_accuracy` is the mean recall over the classes in the test set.
    `brier` sums over the classes, so it lies in [0, 2].

    Args:
        logits: (N, C), natural-log scores under the prior to evaluate; -inf rules a class out.
        labels: (N,), true class in [0, C), whole numbers of any type.
        prior: class prior of the training set, which defines the groups.
        bins: number of bins of the calibration errors.

    Returns: `accuracy`, `many`, `medium`, `few`, `balanced_accuracy`, `macro_f1`, `ece`,
        `classwise_ece` and `brier` as fractions, `nll` in nats per sample, `macro_f1_classes` as a
        count. NaN for a group without a class or a sample; `nll` is infinite when a true class was
        ruled out.
    Raises:
        ValueError: when `prior` is not a `ClassPrior` of the logits' classes; see also
            `score_samples`.

    Examples:
        >>> import torch
        >>> prior = ClassPrior([500, 50])
        >>> metrics = classification_metrics(torch.eye(2), [0, 0], prior)
        >>> metrics["accuracy"], metrics["many"], metrics["medium"]
        (0.5, 0.5, nan)
    """
    return metrics_from_scores(score_samples(logits, labels, bins), prior)


def metrics_from_scores(scores: SampleScores, prior: ClassPrior) -> dict[str, float]:
    """The metrics of `classification_metrics` from the scores of `score_samples`."""
    check_prior("prior", prior)
    if prior.num_classes != scores.num_classes:
        raise InputError(
            f"prior must have the {scores.num_classes} classes of the logits, "
            f"got {prior.num_classes}"
        )
    confusion = Confusion.from_scores(scores)
    groups = {name: confusion.accuracy(members) for name, members in prior.groups().items()}
    f1 = confusion.f1()
    return {
        "accuracy": confusion.accuracy(),
        **groups,
        "balanced_accuracy": confusion.balanced_accuracy(),
        "macro_f1": float(f1.nanmean()),
        "macro_f1_classes": float((~f1.isnan()).sum()),
        "ece": CalibrationCurve.from_scores(scores).ece,
        "classwise_ece": classwise_ece(scores),
        "nll": float(scores.nll.mean()),
        "brier": float(scores.brier.mean()),
    }

"""The figures that a classifier is judged by, overall and by class frequency."""

from torch import Tensor

from longtail.errors import InputError
from longtail.metrics.calibration import CalibrationCurve
from longtail.metrics.confusion import Confusion
from longtail.metrics.scores import SampleScores, score_samples
from longtail.prior import ClassPrior


def classification_metrics(
    logits: Tensor, labels: Tensor, prior: ClassPrior, *, bins: int = 20
) -> dict[str, float]:
    """Accuracy, its many / medium / few parts, macro-F1, calibration and proper scores.

    `many`, `medium` and `few` are accuracies over the *samples* of a group's classes, groups by
    training count (`ClassPrior.groups`), so that they average to `accuracy` on any test set. On a
    test set with equally many samples a class, as the benchmarks have, that is the mean recall of
    the group's classes, which the code of Liu et al. (CVPR 2019) and its followers print.
    `macro_f1` is the mean over all C classes, as scikit-learn's `f1_score(average="macro",
    labels=range(C), zero_division=0)`: a class neither in the test set nor predicted counts as 0.
    `balanced_accuracy` is the mean recall over the classes that the test set has.
    `brier` sums over the classes, so it lies in [0, 2].

    Args:
        logits: (N, C), natural-log scores under the prior to be judged; -inf rules a class out.
        labels: (N,), true class in [0, C).
        prior: of the training set; makes the groups.
        bins: of the expected calibration error.

    Returns: `accuracy`, `many`, `medium`, `few`, `balanced_accuracy`, `macro_f1`, `ece` and
        `brier` as fractions, `nll` in nats a sample. NaN for a group without a class or a sample;
        `nll` is infinite when a true class was ruled out.
    Raises:
        ValueError: when `prior` has another number of classes; see also `score_samples`.

    Example:
        >>> import torch
        >>> prior = ClassPrior([500, 50])
        >>> figures = classification_metrics(torch.eye(2), torch.tensor([0, 0]), prior)
        >>> figures["accuracy"], figures["many"], figures["medium"]
        (0.5, 0.5, nan)
    """
    return metrics_from_scores(score_samples(logits, labels), prior, bins=bins)


def metrics_from_scores(
    scores: SampleScores, prior: ClassPrior, *, bins: int = 20
) -> dict[str, float]:
    """The same figures from samples that have been scored already."""
    if prior.num_classes != scores.num_classes:
        raise InputError(
            f"prior must have the {scores.num_classes} classes of the logits, "
            f"got {prior.num_classes}"
        )
    confusion = Confusion.from_labels(scores.labels, scores.predicted, scores.num_classes)
    groups = {name: confusion.accuracy(members) for name, members in prior.groups().items()}
    return {
        "accuracy": confusion.accuracy(),
        **groups,
        "balanced_accuracy": confusion.balanced_accuracy(),
        "macro_f1": float(confusion.f1().mean()),
        "ece": CalibrationCurve.from_scores(scores, bins).ece,
        "nll": float(scores.nll.mean()),
        "brier": float(scores.brier.mean()),
    }

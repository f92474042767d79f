"""Judging the predictions of a run, under any target prior."""

from longtail.metrics import classification_metrics
from longtail.shift import adjust, resolve_prior
from longtail.training.run import Predictions


def judge(predictions: Predictions, target_prior: str | None = None) -> dict[str, float]:
    """Figures of a run's predictions.

    Args:
        predictions: raw logits, and the prior that they express.
        target_prior: `uniform`, `source` (the training mix) or a file of probabilities, to which
            the logits are adjusted first; as they are when not given.

    Returns: see `longtail.metrics.classification_metrics`.
    """
    logits = predictions.logits
    if target_prior is not None:
        num_classes = len(predictions.class_names)
        expressed, target = (
            resolve_prior(value, predictions.prior, num_classes)
            for value in (predictions.expressed, target_prior)
        )
        logits = adjust(logits, expressed, target)
    return classification_metrics(logits, predictions.labels, predictions.prior)

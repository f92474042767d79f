"""Metrics of the predictions of a run, under any target prior and on shifted test sets."""

from dataclasses import asdict
from typing import Any

from longtail.metrics import classification_metrics
from longtail.shift import adjust, expressed_prior, protocol_table, resolve_prior
from longtail.training.predictions import Predictions

PROTOCOL_METRICS = ("accuracy", "ece", "classwise_ece", "brier", "nll")


def evaluate_predictions(
    predictions: Predictions, target_prior: str | None = None
) -> dict[str, float]:
    """Metrics of a run's predictions.

    Args:
        predictions: raw logits, and the prior that they express.
        target_prior: `uniform`, `source` (the training prior) or a file of probabilities, to which
            the logits are adjusted first; default: not adjusted.

    Returns: see `longtail.metrics.classification_metrics`.
    """
    logits = predictions.logits
    if target_prior is not None:
        names = predictions.class_names
        expressed = expressed_prior(predictions.expressed, predictions.prior)
        target = resolve_prior(target_prior, predictions.prior, len(names), names)
        logits = adjust(logits, expressed, target)
    return classification_metrics(logits, predictions.labels, predictions.prior)


def evaluate_protocol(predictions: Predictions) -> list[dict[str, Any]]:
    """Metrics on LADE's shifted test sets, with the class prior unknown, known and estimated.

    Args:
        predictions: raw logits of a balanced test set.

    Returns: a record for each of the eleven sets, from `forward` 50 via 1 to `backward` 50, with
    all fields of `longtail.shift.Column`; `scores` has accuracy, ECE, Brier score and NLL for the
    `raw` logits, and for those adjusted to the `known` and to the `estimated` prior.

    Raises:
        InputError: when a class has no test image.
    """
    prior = predictions.prior

    def score(logits: Any, labels: Any) -> dict[str, float]:
        metrics = classification_metrics(logits, labels, prior)
        return {name: metrics[name] for name in PROTOCOL_METRICS}

    expressed = expressed_prior(predictions.expressed, prior)
    columns = protocol_table(predictions.logits, predictions.labels, prior, expressed, score)
    return [
        {**asdict(c), "prior": c.prior.tolist(), "estimated": c.estimated.tolist()} for c in columns
    ]

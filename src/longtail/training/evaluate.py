"""Judging the predictions of a run, under any target prior and under many."""

from dataclasses import asdict
from typing import Any

from longtail.metrics import classification_metrics
from longtail.shift import adjust, protocol_table, resolve_prior
from longtail.training.run import Predictions

PROTOCOL_FIGURES = ("accuracy", "ece", "brier", "nll")


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
        names = predictions.class_names
        expressed, target = (
            resolve_prior(value, predictions.prior, len(names), names)
            for value in (predictions.expressed, target_prior)
        )
        logits = adjust(logits, expressed, target)
    return classification_metrics(logits, predictions.labels, predictions.prior)


def judge_protocol(predictions: Predictions) -> list[dict[str, Any]]:
    """Figures on LADE's shifted test sets, with the class mix unknown, known and estimated.

    Args:
        predictions: raw logits of a balanced test set.

    Returns: a record for each of the eleven sets, from `forward` 50 by 1 to `backward` 50, with
        all of `longtail.shift.Column`; `scores` holds accuracy, ECE, Brier and NLL for the logits
        `raw`, adjusted to the `known` mix, and to the `estimated` one.
    Raises:
        ValueError: when a class has no test image.
    """
    prior = predictions.prior

    def score(logits: Any, labels: Any) -> dict[str, float]:
        figures = classification_metrics(logits, labels, prior)
        return {name: figures[name] for name in PROTOCOL_FIGURES}

    expressed = resolve_prior(predictions.expressed, prior, prior.num_classes)
    columns = protocol_table(predictions.logits, predictions.labels, prior, expressed, score)
    return [
        {**asdict(c), "prior": c.prior.tolist(), "estimated": c.estimated.tolist()} for c in columns
    ]

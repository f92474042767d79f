"""Errors name the parameter, the rule and what came."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from longtail import ClassPrior, losses
from longtail.integrations.record import PriorRecord
from longtail.integrations.torchmetrics import GroupAccuracy
from longtail.memory import ClassQueue
from longtail.probe import fit_head

PRIOR = ClassPrior([3, 2])
X, Y, LP = torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), PRIOR.log_prior
VIEWS = torch.zeros(4, 2, 3)
PACO = {"queue_size": 0, "alpha": 0.1, "beta": 1.0, "gamma": 1.0, "temperature": 0.1}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.LogitAdjustedLoss(PRIOR, tau=-1.0),
            "tau of LogitAdjustedLoss must be >= 0, got -1",
        ),
        (lambda: losses.logit_adjusted_loss(X, Y, LP, tau=-1.0), "tau of logit_adj.* got -1"),
        (lambda: losses.FocalLoss(PRIOR, gamma=-2.0), "gamma of FocalLoss must be >= 0, got -2"),
        (lambda: losses.focal_loss(X, Y, gamma=-2.0), "gamma of focal_loss must be >= 0, got -2"),
        (lambda: losses.ClassBalancedLoss(PRIOR, beta=1.0), r"beta .* \[0, 1\), got 1.0"),
        (lambda: losses.LDAMLoss(PRIOR, max_margin=-1.0), "max_margin .* got -1.0"),
        (
            lambda: losses.LDAMLoss(PRIOR, deferred=2.0),
            r"deferred .* \[0, 1\], got 2.0",
        ),
        (lambda: losses.DBMLoss(PRIOR, max_margin=2.0), r"max_margin of .* \[0, 1\], got 2.0"),
        (lambda: losses.DBMLoss(PRIOR, scale=0.0), "scale of DBMLoss must be > 0, got 0.0"),
        (lambda: losses.LADELoss(PRIOR, alpha=-1.0), "alpha of LADELoss must be >= 0, got -1.0"),
        (
            lambda: losses.LADELoss(PRIOR, remine_lambda=-1.0),
            "remine_lambda .* got -1.0",
        ),
        (lambda: losses.LADELoss(PRIOR, prior_of="row"), "prior_of of LADELoss .* got 'row'"),
        (
            lambda: losses.GMLLoss(PRIOR, temperature=0.0),
            "temperature of GMLLoss .* got 0.0",
        ),
        (
            lambda: losses.GMLLoss(PRIOR, logit_scale=-1.0),
            "logit_scale of GMLLoss .* got -1.0",
        ),
        (
            lambda: losses.DistillationLoss(temperature=0.0),
            "temperature .* got 0.0",
        ),
        (
            lambda: losses.distillation_loss(X, X, temperature=-1.0),
            "temperature of distillation_loss must be > 0, got -1.0",
        ),
        (
            lambda: losses.distillation_loss(X, X[:2], temperature=1.0),
            r"got \(4, 2\) and \(2, 2\)",
        ),
        (
            lambda: losses.GMLLoss(PRIOR, alpha=1.0)(X, X, Y, X, Y),
            "teacher_logits of gml_loss must be given where alpha is 1.0",
        ),
        (
            lambda: losses.GMLLoss(PRIOR)(X, X, Y, X, Y, teacher_logits=X[:1]),
            "alpha of gml_loss must be above 0 where teacher_logits is given, got 0",
        ),
        (
            lambda: losses.GMLLoss(PRIOR)(X[:3], X, Y, X, Y),
            r"query and target of gml_loss .* got \(3, 2\) and \(4,\)",
        ),
        (
            lambda: losses.GMLLoss(PRIOR)(X, X, Y, X, Y, query_index=Y),
            "query_index and key_index of gml_loss must both be given, got no key_index",
        ),
        (
            lambda: losses.GMLLoss(PRIOR)(X, X, Y, X, Y, key_index=Y),
            "query_index and key_index of gml_loss must both be given, got no query_index",
        ),
        (
            lambda: losses.GMLLoss(PRIOR)(X, X, Y, X, Y, query_index=Y[:1], key_index=Y),
            r"shapes \(4,\) and \(4,\), got \(1,\) and \(4,\)",
        ),
        (
            lambda: losses.GMLLoss(PRIOR)(X, X, Y, X, Y, query_index=Y, key_index=Y[:, None]),
            r"shapes \(4,\) and \(4,\), got \(4,\) and \(4, 1\)",
        ),
        (
            lambda: losses.GMLLoss(PRIOR)(X, X, Y, X, Y, query_index=Y.double(), key_index=Y),
            "query_index of gml_loss must be image indices of an integer type, got torch.float64",
        ),
        (
            lambda: losses.LDAMLoss(PRIOR).set_progress(3),
            r"fraction of LDAMLoss.set_progress must be in \[0, 1\], got 3",
        ),
        (
            lambda: losses.LDAMLoss(PRIOR).set_progress(float("nan")),
            r"fraction of LDAMLoss.set_progress must be in \[0, 1\] and finite, got nan",
        ),
        (
            lambda: losses.LDAMLoss(PRIOR).set_progress("a"),  # type: ignore[arg-type]
            "fraction of LDAMLoss.set_progress must be a number, got 'a'",
        ),
        (
            lambda: losses.ldam_loss(X, Y, PRIOR),  # type: ignore[arg-type]
            "counts of ClassPrior must be numbers, got ClassPrior",
        ),
        (
            lambda: losses.dbm_loss(X, Y, PRIOR),  # type: ignore[arg-type]
            "counts of ClassPrior must be numbers, got ClassPrior",
        ),
        (
            lambda: losses.logit_adjusted_loss(X, Y, PRIOR),  # type: ignore[arg-type]
            "log_prior of logit_adjusted_loss must be a torch.Tensor, got ClassPrior",
        ),
        (
            lambda: losses.lade_regularizer(X, Y, PRIOR, remine_lambda=0.1),  # type: ignore[arg-type]
            "log_prior of lade_regularizer must be a torch.Tensor, got ClassPrior",
        ),
        (
            lambda: losses.gml_loss(X, X, Y, X, Y, PRIOR, LP[0]),  # type: ignore[arg-type]
            "log_prior of gml_loss must be a torch.Tensor, got ClassPrior",
        ),
        (
            lambda: losses.paco_loss(X, Y, X[:2], PRIOR, **PACO),  # type: ignore[arg-type]
            "log_prior of paco_loss must be a torch.Tensor, got ClassPrior",
        ),
        (
            lambda: losses.proco_loss(X, Y, X, PRIOR, temperature=0.1),  # type: ignore[arg-type]
            "log_prior of proco_loss must be a torch.Tensor, got ClassPrior",
        ),
        (
            lambda: losses.inverse_frequency_weight(torch.tensor([30, 0, 10])),
            r"above zero for every class, got \[0\] for class \[1\]",
        ),
        (
            lambda: losses.effective_number_weight(torch.tensor([30, 0, 10])),
            r"above zero for every class, got \[0\] for class \[1\]",
        ),
        (
            lambda: losses.ldam_loss(X, Y, torch.tensor([3, 0])),
            r"above zero for every class, got \[0\] for class \[1\]",
        ),
        (
            lambda: losses.dbm_loss(X, Y, torch.tensor([3, 0])),
            r"above zero for every class, got \[0\] for class \[1\]",
        ),
        (
            lambda: losses.class_scores(X, X, Y, 2, 0.0),
            "temperature of class_scores must be > 0, got 0.0",
        ),
        (lambda: losses.SupervisedContrastiveLoss(temperature=0.0), "temperature of Sup.* got 0.0"),
        (lambda: losses.BalancedContrastiveLoss(temperature=0.0), "temperature of Bal.* got 0.0"),
        (
            lambda: losses.supervised_contrastive_loss(X, Y, temperature=0.1),
            r"got \(4, 2\) and \(4,\)",
        ),
        (
            lambda: losses.balanced_contrastive_loss(VIEWS, X, Y, temperature=0.1),
            r"prototypes .* \(num_classes, 3\), got \(4, 2\)",
        ),
        (lambda: losses.PaCoLoss(PRIOR, beta=0.0), "beta of PaCoLoss must be > 0, got 0.0"),
        (
            lambda: losses.paco_loss(X, Y, X, LP, **PACO),
            r"\(2 \* 4 \+ 0, width\) and \(8,\), got \(4, 2\) and \(4,\)",
        ),
        (
            lambda: losses.paco_loss(X, Y, VIEWS[:2, 0], LP, **PACO),
            r"logits of paco_loss must be \(batch, 2\), got \(2, 3\)",
        ),
        (
            lambda: losses.ProCoLoss(PRIOR, width=1),
            r"width of ProCoLoss must be in \[2, \d+\], got 1",
        ),
        (
            lambda: losses.ProCoLoss(PRIOR, width=2.5),  # type: ignore[arg-type]
            "width of ProCoLoss must be a whole number, got 2.5",
        ),
        (
            lambda: losses.ProCoLoss(PRIOR, width=3)(X, Y),
            r"mean of proco_loss .* \(2, width\), got \(4, 2\), \(4,\) and \(2, 3\)",
        ),
    ],
)
def test_message(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "given", [[3, 2], PRIOR.counts, PRIOR.log_prior], ids=["list", "counts", "log"]
)
@pytest.mark.parametrize(
    "made",
    [
        *(
            cls
            for cls in (getattr(losses, name) for name in losses.__all__)
            if isinstance(cls, type) and issubclass(cls, losses.ClassificationLoss)
            if cls is not losses.ClassificationLoss
        ),
        losses.GMLLoss,
        losses.PaCoLoss,
        lambda prior: losses.ProCoLoss(prior, width=2),
        lambda prior: ClassQueue(prior, size=4, width=2, base=1),
        lambda prior: PriorRecord(prior, "source"),
        GroupAccuracy,
        lambda prior: fit_head(X, Y, prior),
    ],
)
def test_a_prior_is_a_class_prior(made: Callable[[Any], object], given: Any) -> None:
    message = rf"prior of \w+ must be a ClassPrior, got {type(given).__name__}"
    with pytest.raises(ValueError, match=message):
        made(given)


def test_counts_may_be_a_list() -> None:
    counts, x = torch.tensor([30, 10]), torch.randn(4, 2)
    for loss in (losses.ldam_loss, losses.dbm_loss):
        assert torch.equal(loss(x, Y, [30, 10]), loss(x, Y, counts))  # type: ignore[arg-type]
    for weight in (losses.inverse_frequency_weight, losses.effective_number_weight):
        assert torch.equal(weight([30, 10]), weight(counts))  # type: ignore[arg-type]

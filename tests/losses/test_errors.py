"""Errors name the parameter, the rule and what came."""

from collections.abc import Callable

import pytest
import torch

from longtail import ClassPrior, losses

PRIOR = ClassPrior([3, 2])
X, Y, LP = torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), PRIOR.log_prior
VIEWS = torch.zeros(4, 2, 3)
PACO = {"queue_size": 0, "alpha": 0.1, "beta": 1.0, "gamma": 1.0, "temperature": 0.1}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.LogitAdjusted(PRIOR, tau=-1.0),
            "tau of LogitAdjusted must be >= 0, got -1",
        ),
        (lambda: losses.logit_adjusted_loss(X, Y, LP, tau=-1.0), "tau of logit_adj.* got -1"),
        (lambda: losses.Focal(PRIOR, gamma=-2.0), "gamma of Focal must be >= 0, got -2"),
        (lambda: losses.focal_loss(X, Y, gamma=-2.0), "gamma of focal_loss must be >= 0, got -2"),
        (lambda: losses.ClassBalanced(PRIOR, beta=1.0), r"beta .* \[0, 1\), got 1.0"),
        (lambda: losses.LDAM(PRIOR, max_margin=-1.0), "max_margin .* got -1.0"),
        (lambda: losses.LDAM(PRIOR, deferred=2.0), r"deferred of LDAM .* \[0, 1\], got 2.0"),
        (lambda: losses.LADE(PRIOR, alpha=-1.0), "alpha of LADE must be >= 0, got -1.0"),
        (lambda: losses.LADE(PRIOR, remine_lambda=-1.0), "remine_lambda of LADE .* got -1.0"),
        (lambda: losses.LADE(PRIOR, prior_of="row"), "prior_of of LADE .* got 'row'"),
        (lambda: losses.GML(PRIOR, temperature=0.0), "temperature of GML must be > 0, got 0.0"),
        (lambda: losses.GML(PRIOR, logit_scale=-1.0), "logit_scale of GML must be > 0, got -1.0"),
        (lambda: losses.Distillation(temperature=0.0), "temperature of Distillation .* got 0.0"),
        (
            lambda: losses.distillation_loss(X, X, temperature=-1.0),
            "temperature of distillation_loss must be > 0, got -1.0",
        ),
        (
            lambda: losses.distillation_loss(X, X[:2], temperature=1.0),
            r"got \(4, 2\) and \(2, 2\)",
        ),
        (
            lambda: losses.GML(PRIOR, alpha=1.0)(X, X, Y, X, Y),
            "teacher_logits of gml_loss must be given where alpha is 1.0",
        ),
        (
            lambda: losses.GML(PRIOR)(X[:3], X, Y, X, Y),
            r"query and target of gml_loss .* got \(3, 2\) and \(4,\)",
        ),
        (
            lambda: losses.class_scores(X, X, Y, 2, 0.0),
            "temperature of class_scores must be > 0, got 0.0",
        ),
        (lambda: losses.SupervisedContrastive(temperature=0.0), "temperature of Sup.* got 0.0"),
        (lambda: losses.BalancedContrastive(temperature=0.0), "temperature of Bal.* got 0.0"),
        (
            lambda: losses.supervised_contrastive_loss(X, Y, temperature=0.1),
            r"got \(4, 2\) and \(4,\)",
        ),
        (
            lambda: losses.balanced_contrastive_loss(VIEWS, X, Y, temperature=0.1),
            r"prototypes .* \(num_classes, 3\), got \(4, 2\)",
        ),
        (lambda: losses.PaCo(PRIOR, beta=0.0), "beta .* of PaCo .* got 0.05, 0.0 and 1.0"),
        (
            lambda: losses.paco_loss(X, Y, X, LP, **PACO),
            r"\(2 \* 4 \+ 0, width\) and \(8,\), got \(4, 2\) and \(4,\)",
        ),
        (
            lambda: losses.paco_loss(X, Y, VIEWS[:2, 0], LP, **PACO),
            r"logits of paco_loss must be \(batch, 2\), got \(2, 3\)",
        ),
        (lambda: losses.ProCo(PRIOR, width=1), "width of ProCo must be >= 2, got 1"),
        (
            lambda: losses.ProCo(PRIOR, width=3)(X, Y),
            r"mean of proco_loss .* \(2, width\), got \(4, 2\), \(4,\) and \(2, 3\)",
        ),
    ],
)
def test_message(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

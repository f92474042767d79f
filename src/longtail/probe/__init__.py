"""Heads on fixed features: one call fits any method to a whole training set.

`fit_head(features, target, prior, method)` returns a `FittedHead`: the head, the class prior that
its logits express, and the scale of the columns. `longtail.sklearn.LongTailClassifier` is this
function as a scikit-learn estimator.

    features = torch.randn(300, 64)                    # of a frozen backbone, (samples, width)
    target = torch.arange(300) % 3
    fitted = fit_head(features, target, ClassPrior.from_labels(target), "lade")
    fitted.logits(features)                            # (300, 3)
    layer.load_state_dict({"weight": fitted.head.weight, "bias": fitted.head.bias})

Methods: every classification loss of `longtail.losses` by name (`logit_adjust`, `lade`, `ce`, ...)
or by import path, each with a `Linear` head for the original features; `gml`, class scores of
stored samples plus a linear head (`MixtureHead`); `bcl`, a small network (`ContrastNetwork`).
"""

from longtail.probe.contrast import ContrastNetwork
from longtail.probe.fit import FittedHead, Head, fit_head
from longtail.probe.linear import Linear
from longtail.probe.methods import check_method
from longtail.probe.mixture import Mixture, MixtureHead

__all__ = [
    "ContrastNetwork",
    "FittedHead",
    "Head",
    "Linear",
    "Mixture",
    "MixtureHead",
    "check_method",
    "fit_head",
]

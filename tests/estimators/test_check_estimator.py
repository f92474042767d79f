"""scikit-learn's own checks of an estimator, for every kind of method and all estimators."""

from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from longtail.sklearn import (
    LongTailClassifier,
    PriorAdjustedClassifier,
    TunedPriorClassifierCV,
)

DENSE = "check_sample_weight_equivalence_on_dense_data"
SPARSE = "check_sample_weight_equivalence_on_sparse_data"


def expected_failures(estimator: Any) -> dict[str, str]:
    if isinstance(estimator, PriorAdjustedClassifier | TunedPriorClassifierCV):
        if getattr(estimator, "target_prior", "tuned") is None:
            return {}
        reason = "folds of repeated samples hold out other samples than folds of weighted ones"
        return {DENSE: reason, SPARSE: reason}
    if estimator.method == "lade":
        return dict.fromkeys([DENSE, SPARSE], "the regulariser counts every sample once")
    if estimator.method == "gml":
        return {DENSE: "keys of the queue have no weight"}
    if estimator.method == "bcl":
        return {DENSE: "a mini-batch method: repeated samples make other batches"}
    return {}


# The checks fit to noise and constant columns, of which scikit-learn and L-BFGS warn.
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        LongTailClassifier(),
        LongTailClassifier("lade"),
        LongTailClassifier("reweighted"),
        LongTailClassifier("gml"),
        LongTailClassifier("bcl", method_params={"epochs": 60, "width": 16, "batch_size": 64}),
        PriorAdjustedClassifier(LogisticRegression()),
        PriorAdjustedClassifier(LogisticRegression(), "estimate"),
        TunedPriorClassifierCV(LogisticRegression()),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_check(estimator: Any, check: Any) -> None:
    check(estimator)

"""PriorAdjustedClassifier: which prior is expressed, which is estimated."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from longtail.prior import ClassPrior
from longtail.sklearn import LongTailClassifier, PriorAdjustedClassifier


def test_probabilities_are_multiplied_by_the_ratio_of_priors(data: Any) -> None:
    model = PriorAdjustedClassifier(LogisticRegression(), "uniform").fit(data.x, data.y)
    raw = LogisticRegression().fit(data.x, data.y).predict_proba(data.test)
    by_hand = raw / ClassPrior([160, 60, 20, 6]).probabilities.numpy()
    by_hand /= by_hand.sum(axis=1, keepdims=True)
    assert_allclose(model.predict_proba(data.test), by_hand, rtol=1e-9)
    assert_allclose(model.predict_proba(data.test, "source"), raw, rtol=1e-9)
    plain = PriorAdjustedClassifier(LogisticRegression()).fit(data.x, data.y)
    assert_allclose(plain.predict_proba(data.test), raw, rtol=1e-9)
    assert model.score(data.test, data.truth) > plain.score(data.test, data.truth) + 0.05


SOURCE, UNIFORM = np.array([160, 60, 20, 6]) / 246, np.full(4, 0.25)


@pytest.mark.parametrize(
    ("estimator", "expressed"),
    [
        (LogisticRegression(), SOURCE),
        (LogisticRegression(class_weight="balanced"), UNIFORM),
        (LogisticRegression(class_weight={"dog": 10}), np.array([160, 60, 20, 60]) / 300),
        (make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced")), UNIFORM),
        (RandomForestClassifier(3, class_weight="balanced_subsample"), UNIFORM),
        (LongTailClassifier(), UNIFORM),
        (make_pipeline(StandardScaler(), LongTailClassifier("ce")), SOURCE),
        (GridSearchCV(make_pipeline(LongTailClassifier()), {}, cv=2), UNIFORM),
        (LinearSVC(), SOURCE),
        (GaussianNB(), SOURCE),
        (GaussianNB(priors=UNIFORM), UNIFORM),
        (LinearDiscriminantAnalysis(priors=UNIFORM), UNIFORM),
        (BernoulliNB(fit_prior=False), UNIFORM),
        (CalibratedClassifierCV(LogisticRegression(class_weight="balanced"), cv=2), SOURCE),
        (BaggingClassifier(LogisticRegression(), 2), SOURCE),
    ],
)
def test_expressed_prior_is_found(estimator: Any, expressed: Any, data: Any) -> None:
    model = PriorAdjustedClassifier(estimator).fit(data.x, data.y)
    assert_allclose(model.expressed_prior_, expressed)
    assert_array_equal(model.predict(data.test), model.estimator_.predict(data.test))


@pytest.mark.parametrize(
    ("estimator", "weight"),
    [
        (BaggingClassifier(LogisticRegression(class_weight="balanced"), 2), None),
        (VotingClassifier([("nb", GaussianNB(priors=UNIFORM))], voting="soft"), None),
        (BaggingClassifier(LongTailClassifier(), 2), None),
        (RandomForestClassifier(3, class_weight="balanced"), 0.1),
    ],
)
def test_expressed_prior_is_asked_for_where_it_cannot_be_told(
    estimator: Any, weight: float | None, data: Any
) -> None:
    given = None if weight is None else np.where(data.y == "ant", weight, 1.0)
    with pytest.raises(ValueError, match=r"expressed_prior .* must be given where"):
        PriorAdjustedClassifier(estimator).fit(data.x, data.y, given)
    model = PriorAdjustedClassifier(estimator, expressed_prior="uniform")
    assert_allclose(model.fit(data.x, data.y, given).expressed_prior_, UNIFORM)


def test_frozen_model_with_held_out_samples(data: Any) -> None:
    trained = LogisticRegression().fit(data.x, data.y)
    source = dict(zip(trained.classes_, SOURCE, strict=True))
    dogless = data.truth != "dog"
    model = PriorAdjustedClassifier(
        FrozenEstimator(trained), "estimate", expressed_prior=source
    ).fit(data.test[dogless], data.truth[dogless])
    assert model.estimator_.estimator is trained
    found = model.estimate_prior(data.test)
    assert found.shifted
    assert_array_equal(model.predict_proba(data.test), model.predict_proba(data.test, found.prior))
    with pytest.raises(ValueError, match=r"expressed_prior .* given for a frozen estimator"):
        PriorAdjustedClassifier(FrozenEstimator(trained)).fit(data.test, data.truth)


@pytest.mark.parametrize("estimator", [LogisticRegression(), LongTailClassifier()])
def test_estimated_mix_is_that_of_the_samples(estimator: Any, data: Any) -> None:
    model = PriorAdjustedClassifier(estimator, "estimate", random_state=0).fit(data.x, data.y)
    counts = np.array([10, 20, 50, 100])
    # The test set is sorted by class, a hundred of each.
    rare = np.concatenate([100 * c + np.arange(k) for c, k in enumerate(counts)])
    found = model.estimate_prior(data.test[rare])
    assert found.shifted
    assert np.abs(found.prior.numpy() - counts / counts.sum()).sum() < 0.3
    given = model.score(data.test[rare], data.truth[rare])
    assert given > model.estimator_.score(data.test[rare], data.truth[rare])


def test_same_mix_is_left_alone(data: Any) -> None:
    model = PriorAdjustedClassifier(LogisticRegression(), "estimate", random_state=0)
    model.fit(data.x, data.y)
    again = np.random.default_rng(3).choice(len(data.x), 80, replace=False)
    plain = model.estimator_.predict_proba(data.x[again])
    assert_allclose(model.predict_proba(data.x[again]), plain, rtol=1e-9)


def test_single_samples_and_weights(data: Any) -> None:
    y = np.array(data.y, dtype=object)
    y[0] = "yak"
    weight = np.ones(len(y))
    model = PriorAdjustedClassifier(LogisticRegression(), "estimate").fit(data.x, y, weight)
    assert "yak" in model.classes_
    assert np.isfinite(model.predict_proba(data.test)).all()
    tensor = PriorAdjustedClassifier(LogisticRegression(), "uniform")
    tensor.fit(torch.tensor(data.x), data.y, torch.tensor(weight).numpy())
    assert tensor.score(data.test, data.truth) > 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_prior": "estimated"}, "target_prior .* got 'estimated'"),
        ({"target_prior": [1.0]}, "target_prior .* must have 4 classes, got 1"),
        ({"expressed_prior": "train"}, "expressed_prior .* got 'train'"),
        ({"target_prior": "estimate", "cv": 1}, "cv of PriorAdjustedClassifier .* >= 2, got 1"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str, data: Any) -> None:
    with pytest.raises(ValueError, match=message):
        PriorAdjustedClassifier(LogisticRegression(), **settings).fit(data.x, data.y)


def test_estimate_needs_a_fit_for_it(data: Any) -> None:
    model = PriorAdjustedClassifier(LogisticRegression()).fit(data.x, data.y)
    with pytest.raises(ValueError, match="only where fit had target_prior='estimate', got None"):
        model.predict(data.test, "estimate")
    near = PriorAdjustedClassifier(KNeighborsClassifier())
    with pytest.raises(ValueError, match=r"sample_weight .* got KNeighborsClassifier"):
        near.fit(data.x, data.y, np.ones(len(data.y)))


def test_weights_below_zero_and_single_samples(data: Any) -> None:
    model = PriorAdjustedClassifier(LogisticRegression())
    with pytest.raises(ValueError, match=r"sample_weight of PriorAdj.* must be >= 0, got -1"):
        model.fit(data.x, data.y, np.full(len(data.y), -1.0))
    with pytest.raises(ValueError, match="none with a weight, got None and 1 such classes"):
        model.fit(data.x, data.y, np.where(data.y == "dog", 0.0, 1.0))
    few = [int(np.flatnonzero(data.y == name)[0]) for name in np.unique(data.y)]
    estimating = PriorAdjustedClassifier(LogisticRegression(), "estimate")
    with pytest.raises(ValueError, match=r"2 samples or more of a class .* got 1 of each"):
        estimating.fit(data.x[few], data.y[few])

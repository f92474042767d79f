"""PriorAdjustedClassifier: which prior is expressed, which is estimated."""

from typing import Any, ClassVar

import imblearn.pipeline
import numpy as np
import pytest
import sklearn
import torch
from imblearn.ensemble import (
    BalancedBaggingClassifier,
    BalancedRandomForestClassifier,
    EasyEnsembleClassifier,
    RUSBoostClassifier,
)
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    BaggingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    PredefinedSplit,
    cross_validate,
)
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC, NuSVC

from longtail.prior import ClassPrior
from longtail.sklearn import LongTailClassifier, PriorAdjustedClassifier, TunedPriorClassifierCV


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


class OwnSampler(BaseEstimator):
    """A sampler that imbalanced-learn does not know: every sample twice."""

    def fit_resample(self, X: Any, y: Any) -> Any:
        return np.repeat(X, 2, axis=0), np.repeat(y, 2)

    def fit(self, X: Any, y: Any) -> Any:
        return self


class Boosting(LogisticRegression):
    """The class weights of XGBoost, LightGBM and CatBoost, without them."""

    def __init__(
        self,
        scale_pos_weight: Any = None,
        is_unbalance: Any = None,
        class_weights: Any = None,
        auto_class_weights: Any = None,
    ) -> None:
        super().__init__()
        self.scale_pos_weight, self.is_unbalance = scale_pos_weight, is_unbalance
        self.class_weights, self.auto_class_weights = class_weights, auto_class_weights


def sampled(*steps: Any) -> Any:
    return imblearn.pipeline.make_pipeline(*steps)


def tempered(estimator: Any) -> Any:
    return CalibratedClassifierCV(estimator, method="temperature", cv=2)


def stack(estimator: Any, cv: Any) -> Any:
    return StackingClassifier([("one", estimator)], LogisticRegression(), cv=cv)


NAMES = ["ant", "bee", "cat", "dog"]
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
        (BernoulliNB(), SOURCE),
        (make_pipeline(MinMaxScaler(), ComplementNB()), UNIFORM),
        (make_pipeline(MinMaxScaler(), MultinomialNB()), SOURCE),
        (Boosting(scale_pos_weight=1, is_unbalance=False), SOURCE),
        (CalibratedClassifierCV(Boosting(scale_pos_weight=9.0), cv=2), SOURCE),
        (CalibratedClassifierCV(LogisticRegression(class_weight="balanced"), cv=2), SOURCE),
        (BaggingClassifier(LogisticRegression(), 2), SOURCE),
        (BalancedRandomForestClassifier(5), UNIFORM),
        (BalancedRandomForestClassifier(5, class_weight={"dog": 2}), np.array([1, 1, 1, 2]) / 5),
        (BalancedBaggingClassifier(n_estimators=2), UNIFORM),
        (EasyEnsembleClassifier(2), UNIFORM),
        (make_pipeline(StandardScaler(), BalancedBaggingClassifier(n_estimators=2)), UNIFORM),
        (sampled(RandomUnderSampler(), GaussianNB()), UNIFORM),
        (sampled(RandomUnderSampler(), LongTailClassifier("ce")), UNIFORM),
        (CalibratedClassifierCV(BalancedRandomForestClassifier(5), cv=2), SOURCE),
        (CalibratedClassifierCV(LogisticRegression(), method="temperature", cv=2), SOURCE),
        (stack(GaussianNB(priors=UNIFORM), cv=2), SOURCE),
        # Under its target, not under the prior of the classifier inside.
        (PriorAdjustedClassifier(LogisticRegression(), "uniform"), UNIFORM),
        (PriorAdjustedClassifier(LogisticRegression(class_weight="balanced"), "source"), SOURCE),
        (make_pipeline(PriorAdjustedClassifier(GaussianNB(), "uniform")), UNIFORM),
        (TunedPriorClassifierCV(GaussianNB(), powers=[1.0], cv=2), UNIFORM),
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
        (sampled(RandomUnderSampler(), LogisticRegression()), None),
        (sampled(SMOTE(k_neighbors=2), StandardScaler(), LogisticRegression()), None),
        (sampled(OwnSampler(), LogisticRegression()), None),
        (GridSearchCV(sampled(RandomOverSampler(), LogisticRegression()), {}, cv=2), None),
        (BaggingClassifier(sampled(RandomUnderSampler(), LogisticRegression()), 2), None),
        (BaggingClassifier(BalancedRandomForestClassifier(5), 2), None),
        (BalancedRandomForestClassifier(5, sampling_strategy="not majority"), None),
        (BalancedBaggingClassifier(n_estimators=2, sampler=RandomOverSampler()), None),
        (BalancedBaggingClassifier(n_estimators=2, sampling_strategy={"ant": 50}), None),
        (RUSBoostClassifier(GaussianNB(), n_estimators=2, random_state=0), None),
        (Boosting(scale_pos_weight=9.0), None),
        (Boosting(is_unbalance=True), None),
        (Boosting(class_weights=[1.0, 2.0, 3.0, 4.0]), None),
        (Boosting(class_weights=np.ones(4)), None),
        (Boosting(auto_class_weights="Balanced"), None),
        (make_pipeline(StandardScaler(), Boosting(is_unbalance=True)), None),
        (BaggingClassifier(Boosting(scale_pos_weight=9.0), 2), None),
        (BaggingClassifier(BernoulliNB(fit_prior=False), 2), None),
        (BaggingClassifier(make_pipeline(MinMaxScaler(), ComplementNB()), 2), None),
        (tempered(LogisticRegression(class_weight="balanced")), None),
        (tempered(LongTailClassifier()), None),
        (tempered(GaussianNB(priors=UNIFORM)), None),
        (PriorAdjustedClassifier(LogisticRegression(), "estimate"), None),
    ],
)
def test_expressed_prior_is_asked_for_where_it_cannot_be_told(
    estimator: Any, weight: float | None, data: Any
) -> None:
    given = None if weight is None else np.where(data.y == "ant", weight, 1.0)
    with pytest.raises(ValueError, match=r"expressed_prior .* must be given"):
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


@pytest.mark.filterwarnings("ignore:The `probability` parameter:FutureWarning")
def test_platt_scaling_ignores_weights(data: Any) -> None:
    for machine in (
        SVC(probability=True, class_weight="balanced", random_state=0),
        SVC(probability=True, class_weight={"dog": 10}, random_state=0),
        NuSVC(nu=0.05, probability=True, class_weight="balanced", random_state=0),
    ):
        model = PriorAdjustedClassifier(make_pipeline(StandardScaler(), machine))
        model.fit(data.x, data.y)
        assert_allclose(model.expressed_prior_, SOURCE)
        # The sigmoids are fitted to held-out samples, so the mean is not exact.
        assert_allclose(model.predict_proba(data.x).mean(axis=0), SOURCE, atol=0.05)
    margins = PriorAdjustedClassifier(SVC(class_weight="balanced")).fit(data.x, data.y)
    assert_allclose(margins.expressed_prior_, UNIFORM)
    weight = np.where(data.y == "ant", 0.1, 1.0)
    with pytest.raises(ValueError, match=r"expressed_prior .* must be given for SVC"):
        PriorAdjustedClassifier(SVC(probability=True)).fit(data.x, data.y, weight)


def test_only_a_frozen_classifier_makes_the_prior_unknown(data: Any) -> None:
    scaler = StandardScaler().fit(data.x)
    trained = FrozenEstimator(LogisticRegression().fit(scaler.transform(data.x), data.y))
    for unknown in (
        make_pipeline(FrozenEstimator(scaler), trained),
        VotingClassifier([("a", trained)], voting="soft"),
        CalibratedClassifierCV(trained, method="temperature"),
        GridSearchCV(make_pipeline(scaler, trained), {}, cv=2),
    ):
        with pytest.raises(ValueError, match=r"expressed_prior .* given for a frozen estimator"):
            PriorAdjustedClassifier(unknown, "uniform").fit(data.test, data.truth)
        model = PriorAdjustedClassifier(unknown, "uniform", expressed_prior=SOURCE)
        model.fit(data.test, data.truth)
        assert_allclose(model.prior_.probabilities, SOURCE)
    two = data.x[:, :1], data.y == "ant"
    fixed = FixedThresholdClassifier(FrozenEstimator(LogisticRegression().fit(*two)))
    with pytest.raises(ValueError, match=r"expressed_prior .* given for a frozen estimator"):
        PriorAdjustedClassifier(fixed, "uniform").fit(data.test[:, :1], data.truth == "ant")
    for known in (
        make_pipeline(FrozenEstimator(scaler), LogisticRegression()),
        BaggingClassifier(make_pipeline(FrozenEstimator(scaler), GaussianNB()), 2),
        CalibratedClassifierCV(trained, cv=2),  # which fits a bias to y
        stack(trained, cv="prefit"),
    ):
        model = PriorAdjustedClassifier(known, "uniform").fit(data.test, data.truth)
        assert_allclose(model.expressed_prior_, UNIFORM)


def test_an_adjusted_classifier_is_not_adjusted_twice(data: Any) -> None:
    plain = LogisticRegression().fit(data.x, data.y).predict_proba(data.test)
    inner = PriorAdjustedClassifier(LogisticRegression(), "uniform")
    for wrapped in (inner, make_pipeline(inner)):
        model = PriorAdjustedClassifier(wrapped, "source").fit(data.x, data.y)
        assert_allclose(model.predict_proba(data.test), plain, rtol=1e-9)
    tuned = TunedPriorClassifierCV(inner, powers=[0.0], cv=2).fit(data.x, data.y)
    assert_allclose(tuned.predict_proba(data.test), plain, rtol=1e-9)


@pytest.mark.parametrize("estimator", [LogisticRegression(), LongTailClassifier()])
def test_estimated_prior_is_that_of_the_samples(estimator: Any, data: Any) -> None:
    model = PriorAdjustedClassifier(estimator, "estimate", random_state=0).fit(data.x, data.y)
    counts = np.array([10, 20, 50, 100])
    # The test set is sorted by class, a hundred of each.
    rare = np.concatenate([100 * c + np.arange(k) for c, k in enumerate(counts)])
    found = model.estimate_prior(data.test[rare])
    assert found.shifted
    assert np.abs(found.prior.numpy() - counts / counts.sum()).sum() < 0.3
    given = model.score(data.test[rare], data.truth[rare])
    assert given > model.estimator_.score(data.test[rare], data.truth[rare])


def test_same_prior_changes_nothing(data: Any) -> None:
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
        ({"target_prior": dict.fromkeys(NAMES)}, "target_prior .* got None for class 'ant'"),
        ({"expressed_prior": "train"}, "expressed_prior .* got 'train'"),
        ({"target_prior": "estimate", "cv": 1}, "'cv' parameter of PriorAdjustedClassifier .* 1"),
        ({"cv": "five"}, "'cv' parameter of PriorAdjustedClassifier .* 'five'"),
        ({"random_state": "x"}, "'random_state' parameter of PriorAdjustedClassifier .* 'x'"),
        ({"target_prior": 0.5}, r"'target_prior' parameter of PriorAdjustedClassifier .* 0\.5"),
        ({"expressed_prior": 1}, "'expressed_prior' parameter of PriorAdjustedClassifier .* 1"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str, data: Any) -> None:
    with pytest.raises(ValueError, match=message):
        PriorAdjustedClassifier(LogisticRegression(), **settings).fit(data.x, data.y)


def test_estimate_needs_a_fit_for_it(data: Any) -> None:
    model = PriorAdjustedClassifier(LogisticRegression()).fit(data.x, data.y)
    with pytest.raises(ValueError, match="only if fit had target_prior='estimate', got None"):
        model.predict(data.test, "estimate")
    near = PriorAdjustedClassifier(KNeighborsClassifier())
    with pytest.raises(ValueError, match=r"sample_weight .* got KNeighborsClassifier"):
        near.fit(data.x, data.y, np.ones(len(data.y)))


def test_weights_below_zero_and_single_samples(data: Any) -> None:
    model = PriorAdjustedClassifier(LogisticRegression())
    with pytest.raises(ValueError, match=r"sample_weight of PriorAdj.* must be >= 0, got -1"):
        model.fit(data.x, data.y, np.full(len(data.y), -1.0))
    with pytest.raises(ValueError, match="a weight above 0 in y: 1 such classes, first 'dog'"):
        model.fit(data.x, data.y, np.where(data.y == "dog", 0.0, 1.0))
    few = [int(np.flatnonzero(data.y == name)[0]) for name in np.unique(data.y)]
    estimating = PriorAdjustedClassifier(LogisticRegression(), "estimate")
    with pytest.raises(
        ValueError, match="one class with 2 or more samples, got 1 sample per class"
    ):
        estimating.fit(data.x[few], data.y[few])


def test_log_probabilities(data: Any) -> None:
    model = PriorAdjustedClassifier(LogisticRegression(), "uniform").fit(data.x, data.y)
    assert_allclose(np.exp(model.predict_log_proba(data.test)), model.predict_proba(data.test))
    source = model.predict_log_proba(data.test, target_prior="source")
    assert_allclose(source, np.log(model.predict_proba(data.test, "source")))


class Recorder(LogisticRegression):
    """Notes the samples and parameters of every fit, by the first feature of each sample."""

    seen: ClassVar[list[Any]] = []

    def fit(self, X: Any, y: Any, sample_weight: Any = None, tag: Any = None) -> Any:
        self.seen.append((set(X[:, 0]), sample_weight, tag))
        return super().fit(X, y, sample_weight)


def test_held_out_folds_keep_groups_together(data: Any) -> None:
    groups = np.random.default_rng(0).integers(0, 12, len(data.y))
    by_value = dict(zip(data.x[:, 0], groups, strict=True))
    Recorder.seen.clear()
    model = PriorAdjustedClassifier(Recorder(), "estimate", cv=GroupKFold(3))
    model.fit(data.x, data.y, groups=groups, tag=groups)
    assert len(Recorder.seen) == 4  # the whole set and three folds
    for seen, _, tag in Recorder.seen[1:]:
        held_out = {by_value[v] for v in data.x[:, 0] if v not in seen}
        assert held_out.isdisjoint(by_value[v] for v in seen)
        assert len(tag) == len(seen)
    with pytest.raises(ValueError, match=r"groups of PriorAdjustedClassifier .* splitter .* got 5"):
        PriorAdjustedClassifier(Recorder(), "estimate").fit(data.x, data.y, groups=groups)


def test_a_fold_that_lacks_a_class(data: Any) -> None:
    fold = np.where(data.y == "dog", 0, np.arange(len(data.y)) % 2)
    model = PriorAdjustedClassifier(LogisticRegression(), "estimate", cv=PredefinedSplit(fold))
    assert np.isfinite(model.fit(data.x, data.y).predict_proba(data.test)).all()
    some = PredefinedSplit(np.where(np.arange(len(data.y)) % 5 == 0, 0, -1))
    found = PriorAdjustedClassifier(LogisticRegression(), "estimate", cv=some)
    found.fit(data.x, data.y)
    assert len(found._source.target) == -(-len(data.y) // 5)


def test_sample_weight_reaches_a_pipeline(data: Any) -> None:
    weight = np.where(data.y == "ant", 0.25, 1.0)
    share = np.array([40, 60, 20, 6]) / 126
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    alone = pipeline.fit(data.x, data.y, logisticregression__sample_weight=weight)
    wanted = alone.predict_proba(data.test)
    with pytest.raises(ValueError, match=r"sample_weight of PriorAdj.* got Pipeline; .* routing"):
        PriorAdjustedClassifier(pipeline).fit(data.x, data.y, weight)
    model = PriorAdjustedClassifier(pipeline)
    model.fit(data.x, data.y, logisticregression__sample_weight=weight)
    assert_allclose(model.expressed_prior_, share)
    assert_allclose(model.predict_proba(data.test), wanted)
    with sklearn.config_context(enable_metadata_routing=True):
        for name in (True, "mass"):
            head = LogisticRegression().set_fit_request(sample_weight=name)
            routed = PriorAdjustedClassifier(
                make_pipeline(StandardScaler().set_fit_request(sample_weight=False), head)
            )
            routed.fit(data.x, data.y, **{"sample_weight" if name is True else name: weight})
            assert_allclose(routed.expressed_prior_, share)
            assert_allclose(routed.predict_proba(data.test), wanted)
        deaf = PriorAdjustedClassifier(LogisticRegression().set_fit_request(sample_weight=False))
        deaf.fit(data.x, data.y, sample_weight=weight)
        assert_allclose(deaf.expressed_prior_, SOURCE)


def test_weights_that_the_classifier_does_not_get_or_gets_by_another_name(data: Any) -> None:
    weight = np.where(data.y == "ant", 0.25, 1.0)
    share = np.array([40, 60, 20, 6]) / 126
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        deaf = LogisticRegression().set_fit_request(sample_weight=False)
        named = LogisticRegression().set_fit_request(sample_weight="mass")
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=False)
        pipeline = make_pipeline(scaler, deaf)
        for estimator in (pipeline, GridSearchCV(pipeline, {}, scoring=scorer, cv=2)):
            model = PriorAdjustedClassifier(estimator).fit(data.x, data.y, sample_weight=weight)
            assert_allclose(model.expressed_prior_, SOURCE)
        for estimator in (named, GridSearchCV(named, {}, scoring=scorer, cv=2)):
            model = PriorAdjustedClassifier(estimator).fit(data.x, data.y, mass=weight)
            assert_allclose(model.expressed_prior_, share)


def test_groups_by_routing_through_cross_validation(data: Any) -> None:
    groups = np.arange(len(data.y)) % 12
    with sklearn.config_context(enable_metadata_routing=True):
        model = PriorAdjustedClassifier(LogisticRegression(), "estimate", cv=GroupKFold(3))
        scores = cross_validate(
            model, data.x, data.y, cv=GroupKFold(4), params={"groups": groups}, error_score="raise"
        )
    assert len(scores["test_score"]) == 4


def test_hard_voting(data: Any) -> None:
    members = [
        ("a", PriorAdjustedClassifier(LogisticRegression(), "uniform")),
        ("b", LongTailClassifier()),
        ("c", GaussianNB()),
    ]
    votes = VotingClassifier(members, voting="hard").fit(data.x, data.y)
    assert votes.score(data.test, data.truth) > 0.5
    with pytest.raises(ValueError, match=r"'estimator' parameter .* 'predict_proba'"):
        PriorAdjustedClassifier(VotingClassifier(members, voting="hard")).fit(data.x, data.y)

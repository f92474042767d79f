"""TunedPriorClassifierCV: the prior that a metric asks for."""

from typing import Any

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer, recall_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB

from longtail.sklearn import LongTailClassifier, TunedPriorClassifierCV
from longtail.sklearn.tuned_prior import RESAMPLES, geometric_mean, middle_of_best

NAMES = ["ant", "bee", "cat", "dog"]


def macro(truth: Any, predicted: Any) -> float:
    return float(f1_score(truth, predicted, average="macro"))


def test_macro_f1_beats_plain_and_uniform() -> None:
    gained = []
    for seed in range(4):
        x, y = make_classification(
            4000,
            12,
            n_informative=8,
            n_classes=5,
            weights=[0.7, 0.16, 0.08, 0.04, 0.02],
            random_state=seed,
        )
        model = TunedPriorClassifierCV(GaussianNB(), random_state=0).fit(x[:800], y[:800])
        tuned, plain, uniform = (
            macro(y[800:], model.predict(x[800:], prior)) for prior in (None, "source", "uniform")
        )
        gained.append(tuned - max(plain, uniform))
    assert min(gained) > -0.01  # the noise of 64 samples in the rarest classes
    assert np.mean(gained) > 0.01


def test_chosen_power_is_the_mean_of_the_best_ones_of_resamples(data: Any) -> None:
    base, powers = LogisticRegression(), [0.0, 0.25, 0.5, 0.75, 1.0]
    folds = StratifiedKFold(3)
    model = TunedPriorClassifierCV(base, powers=powers, cv=folds, random_state=3)
    model.fit(data.x, data.y)
    held_out = cross_val_predict(base, data.x, data.y, cv=folds, method="predict_proba")
    share = model.prior_.probabilities.numpy()
    # In the order of the folds, in which the estimator holds them.
    order = np.concatenate([test for _, test in folds.split(data.x, data.y)])
    predicted = [model.classes_[(held_out * share**-p).argmax(1)][order] for p in powers]
    truth = data.y[order]
    scores = [macro(truth, each) for each in predicted]
    assert_allclose(model.cv_results_["score"], scores)
    random, best = np.random.RandomState(3), []
    for _ in range(RESAMPLES):
        rows = []
        for label in model.classes_:
            mine = np.flatnonzero(truth == label)
            rows += random.choice(mine, len(mine)).tolist()
        drawn = np.array([macro(truth[rows], each[rows]) for each in predicted])
        best.append(powers[middle_of_best(drawn)])
    chosen = min(powers, key=lambda power: abs(power - np.mean(best)))
    assert len(set(best)) > 1  # else the mean would say nothing
    assert model.best_power_ == chosen
    assert model.best_score_ == scores[powers.index(chosen)]
    target = share ** (1 - model.best_power_)
    assert_allclose(model.target_prior_, target / target.sum())
    wanted = base.fit(data.x, data.y).predict_proba(data.test) * model.target_prior_ / share
    wanted /= wanted.sum(axis=1, keepdims=True)
    assert_allclose(model.predict_proba(data.test), wanted)


def test_accuracy_wants_the_source_and_balanced_accuracy_the_uniform_prior(data: Any) -> None:
    base = GaussianNB()
    for scoring, low, high in (("accuracy", -0.5, 0.5), ("balanced_accuracy", 0.5, 1.5)):
        model = TunedPriorClassifierCV(base, scoring=scoring, random_state=0)
        assert low <= model.fit(data.x, data.y).best_power_ <= high


def test_a_classifier_that_expresses_the_uniform_prior(data: Any) -> None:
    model = TunedPriorClassifierCV(LongTailClassifier(), powers=[0.0]).fit(data.x, data.y)
    assert_allclose(model.target_prior_, model.prior_.probabilities)
    source = model.predict_proba(data.test, target_prior="source")
    assert_allclose(model.predict_proba(data.test), source)


def test_costs(data: Any) -> None:
    costs = 1.0 - np.eye(4)
    costs[3] *= 20  # a dog that is missed
    model = TunedPriorClassifierCV(GaussianNB(), scoring=costs, class_offsets=True, random_state=0)
    model.fit(data.x, data.y)
    mean = {
        prior: costs[
            np.searchsorted(model.classes_, data.truth),
            np.searchsorted(model.classes_, model.predict(data.test, prior)),
        ].mean()
        for prior in (None, "source")
    }
    assert mean[None] < mean["source"]
    assert_allclose(
        -model.best_score_ * len(data.y) % 1, 0, atol=1e-9
    )  # a sum of whole costs over all held-out samples
    with pytest.raises(ValueError, match=r"scoring .* \(4, 4\), got shape \(2, 2\)"):
        TunedPriorClassifierCV(GaussianNB(), scoring=np.eye(2)).fit(data.x, data.y)


def test_offsets_raise_the_score_of_the_held_out_samples(data: Any) -> None:
    for scoring in ("f1_macro", "geometric_mean", make_scorer(macro)):
        plain = TunedPriorClassifierCV(GaussianNB(), scoring=scoring, random_state=0)
        more = clone(plain).set_params(class_offsets=True)
        plain.fit(data.x, data.y)
        more.fit(data.x, data.y)
        assert_array_equal(plain.class_offsets_, 0)
        assert more.best_score_ >= plain.best_score_
        assert more.best_power_ == plain.best_power_


def test_geometric_mean() -> None:
    truth, predicted = [0, 0, 1, 1, 2], [0, 1, 1, 1, 2]
    recalls = recall_score(truth, predicted, average=None)
    assert_allclose(geometric_mean(np.array(truth), np.array(predicted)), np.cbrt(np.prod(recalls)))
    assert geometric_mean(np.array(truth), np.zeros(5)) == 0


def test_the_middle_of_equal_scores() -> None:
    assert middle_of_best(np.array([0, 1, 1, 1, 0, 1])) == 2
    assert middle_of_best(np.array([np.nan, 0.5, 0.2])) == 1


def test_frozen_and_groups_and_weights(data: Any) -> None:
    trained = GaussianNB().fit(data.x, data.y)
    frozen = TunedPriorClassifierCV(
        FrozenEstimator(trained), expressed_prior=trained.class_prior_, scoring="balanced_accuracy"
    ).fit(data.test, data.truth)
    assert frozen.estimator_.estimator is trained
    assert_allclose(frozen.prior_.probabilities, trained.class_prior_)
    groups = np.arange(len(data.y)) % 9
    grouped = TunedPriorClassifierCV(GaussianNB(), cv=GroupKFold(3))
    assert grouped.fit(data.x, data.y, groups=groups).score(data.test, data.truth) > 0.5
    weight = np.where(data.y == "ant", 0.5, 1.0)
    weighted = TunedPriorClassifierCV(LogisticRegression(), random_state=0)
    weighted.fit(data.x, data.y, weight)
    assert_allclose(weighted.prior_.probabilities, np.array([80, 60, 20, 6]) / 166)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(geometric_mean).set_score_request(sample_weight=True)
        head = LogisticRegression().set_fit_request(sample_weight=True)
        routed = TunedPriorClassifierCV(head, scoring=scorer, cv=StratifiedKFold(3))
        routed.fit(data.x, data.y, sample_weight=weight)
    assert_allclose(routed.prior_.probabilities, weighted.prior_.probabilities)


@pytest.mark.parametrize(
    "scoring",
    [
        "neg_log_loss",
        "neg_brier_score",
        "d2_log_loss_score",
        "roc_auc_ovr",
        "roc_auc_ovo",
        "top_k_accuracy",
    ],
)
def test_a_class_with_one_sample_and_a_scorer_of_probabilities(scoring: str, data: Any) -> None:
    y = np.array(data.y, dtype=object)
    y[0] = "yak"  # never held out
    model = TunedPriorClassifierCV(GaussianNB(var_smoothing=0.1), scoring=scoring, powers=[0, 1])
    model.fit(data.x, y)
    assert np.isfinite(model.best_score_)
    assert model.target_prior_.shape == (5,)


def test_log_loss_among_the_classes_that_are_held_out(data: Any) -> None:
    y = np.where(np.arange(len(data.y)) == 0, "yak", data.y)
    folds = [(np.arange(len(y)) % 2 != k, np.arange(len(y)) % 2 == k) for k in (0, 1)]
    folds = [(np.flatnonzero(a | (y == "yak")), np.flatnonzero(b & (y != "yak"))) for a, b in folds]
    model = TunedPriorClassifierCV(
        LogisticRegression(), scoring="neg_log_loss", powers=[0.0], cv=folds
    ).fit(data.x, y)
    raw = [LogisticRegression().fit(data.x[a], y[a]).predict_proba(data.x[b]) for a, b in folds]
    among = np.concatenate(raw)[:, :4]  # all but yak
    among /= among.sum(axis=1, keepdims=True)
    truth = np.concatenate([y[b] for _, b in folds])
    by_hand = np.log(among[np.arange(len(truth)), np.searchsorted(NAMES, truth)]).mean()
    assert_allclose(model.best_score_, by_hand)


def test_one_class_that_is_held_out(data: Any) -> None:
    y = np.where(np.arange(len(data.y)) == 0, "yak", "ant")
    alone = TunedPriorClassifierCV(GaussianNB(var_smoothing=0.1), scoring="neg_log_loss")
    with pytest.raises(ValueError, match=r"scoring of Tuned.* 2 classes or more, .*\['ant'\]"):
        alone.fit(data.x, y)
    assert alone.set_params(scoring="accuracy").fit(data.x, y).best_score_ == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scoring": "f1_makro"}, "'scoring' parameter of TunedPriorClassifierCV .* 'f1_makro'"),
        ({"class_offsets": "yes"}, "'class_offsets' parameter of TunedPrior.* 'yes'"),
        ({"powers": 3}, "'powers' parameter of TunedPriorClassifierCV .* 3"),
        ({"powers": [np.nan]}, r"powers of TunedPriorClassifierCV must be finite .* \[nan\]"),
        ({"powers": ["a"]}, r"powers of TunedPriorClassifierCV must be finite .* \['a'\]"),
        ({"scoring": ["accuracy"]}, r"scoring of Tuned.* one scorer or finite costs .*'accuracy'"),
        ({"scoring": np.full((4, 4), np.nan)}, r"scoring of Tuned.* finite costs .* got array"),
        ({"expressed_prior": dict.fromkeys(NAMES)}, r"expressed_prior of .* got None for .* 'ant'"),
        ({"powers": []}, r"powers of TunedPriorClassifierCV must be finite .* \[\]"),
        ({"cv": 1}, "'cv' parameter of TunedPriorClassifierCV .* 1"),
        ({"n_jobs": 1.5}, r"'n_jobs' parameter of TunedPriorClassifierCV .* 1\.5"),
        ({"random_state": "x"}, "'random_state' parameter of TunedPriorClassifierCV .* 'x'"),
        ({"expressed_prior": 1}, "'expressed_prior' parameter of TunedPrior.* 1"),
        ({"expressed_prior": "unform"}, "expressed_prior of TunedPriorClassifierCV must be one of"),
        ({"estimator": StratifiedKFold()}, "'estimator' parameter of TunedPrior.* 'predict_proba'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str, data: Any) -> None:
    with pytest.raises(ValueError, match=message):
        TunedPriorClassifierCV(**({"estimator": GaussianNB()} | settings)).fit(data.x, data.y)


def test_messages_of_the_fit_name_the_tuned_classifier(data: Any) -> None:
    with pytest.raises(ValueError, match="TunedPriorClassifierCV requires y to be passed"):
        TunedPriorClassifierCV(GaussianNB()).fit(data.x, None)
    frozen = FrozenEstimator(LogisticRegression().fit(data.x, data.y))
    with pytest.raises(ValueError, match="expressed_prior of TunedPriorClassifierCV must be given"):
        TunedPriorClassifierCV(frozen).fit(data.x, data.y)
    few = FrozenEstimator(GaussianNB().fit(data.x[:90], data.y[:90]))
    unknown = np.where(data.y == "ant", "gnu", data.y)
    with pytest.raises(ValueError, match=r"y of TunedPriorClassifierCV\.fit must contain known"):
        TunedPriorClassifierCV(few, expressed_prior="uniform").fit(data.x, unknown)

"""LongTailClassifier: the optimum it finds, what it takes, and how it is used."""

import io
import pickle
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    RepeatedStratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from longtail.losses import ClassificationLoss, LADELoss
from longtail.methods import method_names
from longtail.prior import ClassPrior
from longtail.probe import Mixture, MixtureHead
from longtail.shift import adjust
from longtail.sklearn import LongTailClassifier

NAMES = ["ant", "bee", "cat", "dog"]
LINEAR = [name for name, item in method_names().items() if issubclass(item, ClassificationLoss)]
SMALL = {"bcl": {"epochs": 40, "width": 16, "batch_size": 64, "learning_rate": 0.01}}


class OwnLoss(LADELoss):
    """A loss that only this file knows, with an ordinary parameter."""

    def __init__(self, prior: ClassPrior, alpha: float = 0.1) -> None:
        super().__init__(prior, alpha=alpha)


def fitted(method: str, data: Any, **settings: Any) -> LongTailClassifier:
    model = LongTailClassifier(method, method_params=SMALL.get(method), random_state=0, **settings)
    return model.fit(data.x, data.y)


def test_cross_entropy_is_logistic_regression(data: Any) -> None:
    ours = fitted("ce", data, C=3.0, tol=1e-8)
    total = data.x.var(axis=0).sum()
    theirs = LogisticRegression(C=3.0 / total, tol=1e-8, max_iter=1000).fit(data.x, data.y)
    # Differences: the optimisers end at gradients of 1e-8.
    assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    assert_allclose(ours.predict_proba(data.test), theirs.predict_proba(data.test), atol=1e-6)


def test_logit_adjustment_at_the_optimum_has_no_gradient(data: Any) -> None:
    model = fitted("logit_adjust", data, C=3.0, tol=1e-8)
    counts = np.bincount(np.unique(data.y, return_inverse=True)[1])
    logits = data.x @ model.coef_.T + model.intercept_ + np.log(counts / counts.sum())
    posterior = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = posterior - (data.y[:, None] == model.classes_)
    strength = data.x.var(axis=0).sum() / (3.0 * len(data.x))
    gradient = error.T @ data.x / len(data.x) + strength * model.coef_
    assert_allclose(gradient, 0, atol=1e-7)
    assert_allclose(error.mean(axis=0), 0, atol=1e-7)


@pytest.mark.parametrize("method", ["logit_adjust", "lade", "gml", "bcl"])
def test_rare_classes_gain_over_cross_entropy(method: str, data: Any) -> None:
    plain, better = (
        balanced_accuracy_score(data.truth, fitted(name, data).predict(data.test))
        for name in ("ce", method)
    )
    assert better > plain + 0.05


@pytest.mark.parametrize("method", LINEAR)
def test_every_classification_loss_is_a_method(method: str, data: Any) -> None:
    model = fitted(method, data)
    assert model.score(data.test, data.truth) > 0.4
    assert model.coef_.shape == (4, 6)
    assert_allclose(model.expressed_prior_.sum(), 1)


def test_own_loss_by_its_import_path(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_losses", sys.modules[__name__])
    settings = {"alpha": 0.5}
    own = LongTailClassifier("own_losses.OwnLoss", method_params=settings).fit(data.x, data.y)
    lade = LongTailClassifier("lade", method_params=settings).fit(data.x, data.y)
    assert_array_equal(own.coef_, lade.coef_)
    for wrong in ("beta", "prior"):
        with pytest.raises(ValueError, match=r"method_params must be settings of .*\['alpha'\]"):
            LongTailClassifier("own_losses.OwnLoss", method_params={wrong: 1}).fit(data.x, data.y)


@pytest.mark.parametrize("method", ["logit_adjust", "ce", "gml"])
def test_target_prior_is_the_packages_adjust(method: str, data: Any) -> None:
    model = fitted(method, data)
    expressed = model.prior_.probabilities if method == "ce" else np.full(4, 0.25)
    assert_allclose(model.expressed_prior_, expressed)
    target = {"dog": 0.4, "cat": 0.3, "bee": 0.2, "ant": 0.1}
    ordered = [0.1, 0.2, 0.3, 0.4]
    logits = adjust(model.decision_function(data.test), expressed, ordered)
    wanted = torch.tensor(logits).softmax(1).numpy()
    for prior in (target, pd.Series(target), ordered, torch.tensor(ordered, dtype=torch.float64)):
        assert_allclose(model.predict_proba(data.test, target_prior=prior), wanted, rtol=1e-12)
    assert_array_equal(model.predict(data.test, target), model.classes_[wanted.argmax(1)])
    same = model.predict_proba(data.test, "source" if method == "ce" else "uniform")
    assert_array_equal(same, model.predict_proba(data.test))


def test_kinds_of_input_agree(data: Any) -> None:
    wanted = fitted("logit_adjust", data).predict_proba(data.test)
    names = [f"f{i}" for i in range(6)]
    frame = LongTailClassifier().fit(pd.DataFrame(data.x, columns=names), pd.Series(data.y))
    assert frame.feature_names_in_.tolist() == names
    assert_array_equal(frame.predict_proba(pd.DataFrame(data.test, columns=names)), wanted)
    tensor = LongTailClassifier().fit(torch.tensor(data.x, requires_grad=True), data.y)
    assert_array_equal(tensor.predict_proba(torch.tensor(data.test)), wanted)
    half = LongTailClassifier().fit(torch.tensor(data.x).bfloat16(), data.y)
    # bfloat16 keeps three digits of the features, and weights of 10 carry that into the logits.
    assert_allclose(half.predict_proba(torch.tensor(data.test).bfloat16()), wanted, atol=0.1)


def test_sparse_is_dense_without_the_centre(data: Any) -> None:
    x = data.x - data.x.mean(axis=0)
    dense = LongTailClassifier(tol=1e-8, max_iter=1000).fit(x, data.y)
    sparse = LongTailClassifier(tol=1e-8, max_iter=1000).fit(csr_matrix(x), data.y)
    assert_allclose(sparse.coef_, dense.coef_, atol=1e-6)
    assert_allclose(sparse.predict_proba(csr_matrix(x)), dense.predict_proba(x), atol=1e-6)
    streams = (
        LongTailClassifier(random_state=0).partial_fit(z, data.y, NAMES) for z in (x, csr_matrix(x))
    )
    assert_allclose(*(stream.coef_ for stream in streams), atol=1e-9)
    with pytest.raises(TypeError, match=r"[Ss]parse data"):
        LongTailClassifier("gml").fit(csr_matrix(x), data.y)


@pytest.mark.parametrize("method", ["ce", "logit_adjust"])
def test_c_means_the_same_for_sparse_features_with_a_mean(method: str, data: Any) -> None:
    x = data.x + 3  # all of one scale: the means dominate the squares
    dense, sparse = (
        LongTailClassifier(method, tol=1e-8, max_iter=1000).fit(z, data.y)
        for z in (x, csr_matrix(x))
    )
    # Without the centre, L-BFGS stops further from the optimum.
    assert_allclose(sparse.predict_proba(x), dense.predict_proba(x), atol=1e-5)
    streams = (
        LongTailClassifier(method, random_state=0).partial_fit(z, data.y, NAMES)
        for z in (x, csr_matrix(x))
    )
    one, two = (stream._stream for stream in streams)
    assert one is not None
    assert two is not None
    assert_allclose(two.variance, one.variance)


def test_stream_comes_near_the_whole_set(data: Any) -> None:
    whole = fitted("logit_adjust", data)
    order = np.random.default_rng(0).permutation(len(data.x))
    stream = LongTailClassifier(batch_size=32, random_state=0)
    for _ in range(20):
        for rows in np.array_split(order, 4):
            stream.partial_fit(data.x[rows], data.y[rows], classes=whole.classes_)
    assert stream.class_counts_.tolist() == (20 * whole.class_counts_).tolist()
    assert stream.n_iter_ == 160
    assert (stream.predict(data.test) == whole.predict(data.test)).mean() > 0.95


def test_stream_continues_from_a_fit_and_from_a_file(data: Any) -> None:
    model = fitted("logit_adjust", data)
    before = model.predict_proba(data.test)
    again: LongTailClassifier = pickle.loads(pickle.dumps(model))
    for each in (model, again):
        each.partial_fit(data.x[:40], data.y[:40])
        each.partial_fit(data.x[200:], data.y[200:])
    after = model.predict_proba(data.test)
    assert_array_equal(after, again.predict_proba(data.test))
    assert 0 < np.abs(after - before).max() < 0.5


def test_stream_continues_from_the_linear_part_of_another_method(data: Any) -> None:
    tiny = {"method": "logit_adjust", "method_params": None, "learning_rate": 1e-12}
    mixture, network = fitted("gml", data), fitted("bcl", data)
    assert isinstance(mixture._head, MixtureHead)
    start = mixture._head.linear.weight
    mixture.set_params(**tiny).partial_fit(data.x, data.y)
    assert_allclose(mixture.coef_, start, atol=1e-9)
    network.set_params(**tiny).partial_fit(data.x, data.y)  # which has no such part
    assert_allclose(network.coef_, 0, atol=1e-9)


def test_class_that_the_stream_has_not_seen(data: Any) -> None:
    ants = data.y == "ant"
    model = LongTailClassifier().partial_fit(data.x[ants], data.y[ants], classes=["ant", "yak"])
    assert np.isfinite(model.predict_proba(data.test)).all()
    with pytest.raises(ValueError, match=r"y of LongTailClassifier\.partial_fit .* got 'bee'"):
        model.partial_fit(data.x, data.y)
    assert not hasattr(LongTailClassifier("gml"), "partial_fit")


def test_the_prior_of_a_stream_is_that_of_its_weights(data: Any) -> None:
    weight = np.full(len(data.y), 1 / len(data.y))
    model = LongTailClassifier().partial_fit(data.x, data.y, np.unique(data.y), weight)
    assert_allclose(model.prior_.probabilities, fitted("ce", data).prior_.probabilities)


def test_nothing_stays_of_an_earlier_fit(data: Any) -> None:
    model = fitted("ce", data)
    assert model.coef_.shape == (len(model.classes_), data.x.shape[1])
    assert not hasattr(model.set_params(method="gml").fit(data.x, data.y), "coef_")


def test_warm_start_needs_fewer_iterations(data: Any) -> None:
    for method in ("logit_adjust", "gml"):
        model = fitted(method, data, warm_start=True, tol=1e-6)
        cold, first = model.n_iter_, model.predict_proba(data.test)
        model.fit(data.x, data.y)
        assert model.n_iter_ < cold / 2
        # Two ways to a gradient of 1e-6.
        assert_allclose(model.predict_proba(data.test), first, atol=1e-4)
        model.fit(data.x, np.where(data.y == "dog", "cat", data.y))
        assert model.coef_.shape[0] == 3 if method == "logit_adjust" else True


@pytest.mark.parametrize("method", ["logit_adjust", "gml"])
def test_warm_start_with_another_float_type(method: str, data: Any) -> None:
    for first, second in ((np.float64, np.float32), (np.float32, np.float64)):
        model = LongTailClassifier(method, warm_start=True, tol=1e-3, random_state=0)
        cold = model.fit(data.x.astype(first), data.y).n_iter_
        model.fit(data.x.astype(second), data.y)
        assert model.n_iter_ < cold
        assert model.decision_function(data.test).dtype == second


@pytest.mark.parametrize("method", ["logit_adjust", "gml", "bcl"])
@pytest.mark.parametrize("fill", [1e20, 9.97e36])
def test_fill_values_that_overflow_the_variance(method: str, fill: float, data: Any) -> None:
    x = data.x.copy()
    x[3, 2] = fill
    with pytest.raises(ValueError, match=r"variance that torch\.float32 .* got inf in column 2"):
        LongTailClassifier(method).fit(x.astype(np.float32), data.y)


def test_fill_values_in_float64_or_in_a_sparse_matrix(data: Any) -> None:
    x = data.x.copy()
    x[3, 2] = 1e20
    assert LongTailClassifier().fit(x, data.y).score(data.test, data.truth) > 0.5
    sparse = csr_matrix(x.astype(np.float32))
    with pytest.raises(ValueError, match=r"variance that torch\.float32 .* got inf in column 2"):
        LongTailClassifier().fit(sparse, data.y)


def test_same_random_state_same_model(data: Any) -> None:
    for method in ("gml", "bcl"):
        one, two = (fitted(method, data).predict_proba(data.test) for _ in range(2))
        assert_array_equal(one, two)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fitted("bcl", data)
    assert torch.equal(state, torch.get_rng_state())


def test_pipeline_search_and_cross_validation(data: Any) -> None:
    pipe = make_pipeline(StandardScaler(), LongTailClassifier())
    grid = {
        "longtailclassifier__C": [0.1, 10.0],
        "longtailclassifier__method": ["ce", "logit_adjust"],
    }
    search = GridSearchCV(pipe, grid, scoring="balanced_accuracy", cv=3, n_jobs=1)
    search.fit(data.x, data.y)
    assert search.best_params_["longtailclassifier__method"] == "logit_adjust"
    held_out = cross_val_predict(clone(pipe), data.x, data.y, cv=3, method="predict_proba")
    assert held_out.shape == (len(data.x), 4)


def test_sample_weight_zero_leaves_a_class_out(data: Any) -> None:
    weight = (data.y != "dog").astype(float)
    model = LongTailClassifier().fit(data.x, data.y, weight)
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    assert model.prior_ == ClassPrior([160, 60, 20])


def test_one_sample_a_class() -> None:
    for method in ("logit_adjust", "gml"):
        model = LongTailClassifier(method).fit([[0.0, 1.0], [1.0, 0.0]], [3, 7])
        assert model.predict([[0.1, 0.9], [0.8, 0.1]]).tolist() == [3, 7]


def test_stops_with_a_warning(data: Any) -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter = 2"):
        LongTailClassifier(max_iter=2).fit(data.x, data.y)


def test_saved_by_joblib(data: Any) -> None:
    import joblib

    for method in ("logit_adjust", "gml", "bcl"):
        model, file = fitted(method, data), io.BytesIO()
        joblib.dump(model, file)
        file.seek(0)
        again = joblib.load(file)
        assert_array_equal(again.predict_proba(data.test), model.predict_proba(data.test))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "logit_ajust"}, "method must be one of .* 'logit_ajust'.*'logit_adjust'"),
        ({"method": "longtail.losses.Nothing"}, "longtail.losses.*Nothing"),
        ({"method": "longtail.methods.GML"}, "import path of a ClassificationLoss"),
        ({"method_params": {"taw": 1}}, r"settings of 'logit_adjust', \['tau'\], got \['taw'\]"),
        ({"method": "gml", "method_params": {"tau": 1}}, r"\['keys', .* got \['tau'\]"),
        ({"method": "gml", "method_params": {"keys": 3}}, "keys of gml must be >= the 4 classes"),
        ({"method": "gml", "method_params": {"shrinkage": 0.0}}, r"shrinkage .* got 0.0"),
        ({"method_params": {"tau": -1.0}}, "tau of LogitAdjustedLoss must be >= 0, got -1.0"),
        ({"C": 0.0}, r"'C' parameter of LongTailClassifier .* 0\.0"),
        ({"C": "1"}, "'C' parameter of LongTailClassifier .* '1'"),
        ({"max_iter": 0}, "'max_iter' parameter of LongTailClassifier .* 0"),
        ({"max_iter": 1.5}, r"'max_iter' parameter of LongTailClassifier .* 1\.5"),
        ({"method": 3}, "'method' parameter of LongTailClassifier .* 3"),
        ({"method_params": [1]}, "'method_params' parameter of LongTailClassifier .* \\[1\\]"),
        ({"standardize": "on"}, "'standardize' parameter of LongTailClassifier .*'auto'.* 'on'"),
        ({"tol": -1.0}, r"'tol' parameter of LongTailClassifier .* -1\.0"),
        ({"batch_size": None}, "'batch_size' parameter of LongTailClassifier .* None"),
        ({"learning_rate": 0}, "'learning_rate' parameter of LongTailClassifier .* 0"),
        ({"warm_start": "no"}, "'warm_start' parameter of LongTailClassifier .* 'no'"),
        ({"random_state": "x"}, "'random_state' parameter of LongTailClassifier .* 'x'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str, data: Any) -> None:
    with pytest.raises(ValueError, match=message):
        LongTailClassifier(**settings).fit(data.x, data.y)


def test_wrong_inputs(data: Any) -> None:
    with pytest.raises(ValueError, match="2 classes or more, got 1 class"):
        LongTailClassifier().fit(data.x, np.zeros(len(data.x)))
    with pytest.raises(ValueError, match=r"sample_weight of LongTailClassifier .* got -1"):
        LongTailClassifier().fit(data.x, data.y, -np.ones(len(data.x)))
    model = fitted("logit_adjust", data)
    for prior, message in (
        ("unifrom", "one of .* got 'unifrom'; did you mean 'uniform'"),
        ({"ant": 1.0}, "name every class, got 3 missing, first 'bee'"),
        (dict.fromkeys([*NAMES, "eel"], 0.2), "known classes .* first 'eel'"),
        ([0.5, 0.5], "must have 4 classes, got 2"),
        ([0.5, 0.5, 0.5, 0.5], "must sum to 1 .* got 2"),
    ):
        with pytest.raises(ValueError, match=f"target_prior of LongTailClassifier .*{message}"):
            model.predict(data.test, target_prior=prior)


def test_a_constant_feature_without_a_penalty(data: Any) -> None:
    x = np.c_[data.x, np.zeros(len(data.x))]
    model = LongTailClassifier("ce", C=np.inf).fit(x, data.y)
    without = LongTailClassifier("ce", C=np.inf).fit(data.x, data.y)
    test = np.c_[data.test, np.zeros(len(data.test))]
    assert_allclose(model.predict_proba(test), without.predict_proba(data.test), atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 19])
def test_networks_of_any_number_of_steps(steps: int, data: Any) -> None:
    settings = {"epochs": steps, "batch_size": len(data.x), "width": 4}
    model = LongTailClassifier("bcl", method_params=settings, random_state=0)
    assert np.isfinite(model.fit(data.x, data.y).predict_proba(data.test)).all()


def test_networks_without_a_step(data: Any) -> None:
    with pytest.raises(ValueError, match="epochs of bcl must be >= 1, got 0"):
        LongTailClassifier("bcl", method_params={"epochs": 0}).fit(data.x, data.y)


def test_a_first_batch_that_is_refused_does_not_count(data: Any) -> None:
    model, names = LongTailClassifier("ce"), np.array(NAMES)
    broken = np.where(np.arange(data.x.size).reshape(data.x.shape) == 3, np.nan, data.x)
    for x, y in ((broken, data.y), (data.x, np.full(len(data.y), "eel"))):
        with pytest.raises(ValueError, match=r"NaN|'eel'"):
            model.partial_fit(x, y, classes=names)
    model.partial_fit(data.x, data.y, classes=names)
    fresh = LongTailClassifier("ce", random_state=0).partial_fit(data.x, data.y, classes=names)
    assert model.class_counts_.tolist() == fresh.class_counts_.tolist()


@pytest.mark.parametrize("method", ["logit_adjust", "lade", "gml", "bcl"])
def test_columns_in_any_unit_are_as_good_as_scaled_ones(method: str, data: Any) -> None:
    unit = 10.0 ** np.array([-4, 3, 0, 5, -2, 1])
    plain = LongTailClassifier(
        method, standardize=True, method_params=SMALL.get(method), random_state=0
    ).fit(data.x, data.y)
    model = fitted(method, SimpleNamespace(x=data.x * unit, y=data.y))
    assert_allclose(model.scale_, (data.x * unit).std(axis=0))
    wanted = plain.predict_proba(data.test)
    # The optimiser's path and its end depend on rounding.
    assert_allclose(model.predict_proba(data.test * unit), wanted, atol=1e-3)
    assert fitted(method, data).scale_ is None


def test_unscaled_tables() -> None:
    for load in (load_wine, load_breast_cancer):
        x, y = load(return_X_y=True)
        keep = rarer(y)
        folds = RepeatedStratifiedKFold(n_splits=3, n_repeats=3, random_state=0)
        raw, scaled, left = (
            cross_val_score(m, x[keep], y[keep], cv=folds, scoring="balanced_accuracy").mean()
            for m in (
                LongTailClassifier(),
                make_pipeline(StandardScaler(), LongTailClassifier()),
                LongTailClassifier(standardize=False, max_iter=1000),
            )
        )
        assert raw > scaled - 0.01
        assert raw > left + 0.02  # or the test shows nothing


def test_units_within_the_factor_that_is_left_alone() -> None:
    """Half of the columns in a unit 15 times smaller: not standardised, and hardly worse."""
    x, y = load_wine(return_X_y=True)
    keep = rarer(y)
    scaled = StandardScaler().fit_transform(x)[keep]
    ranges = np.ptp(scaled, axis=0)
    uneven = scaled / ranges * np.where(np.arange(x.shape[1]) % 2, 1, 15)
    assert LongTailClassifier().fit(uneven, y[keep]).scale_ is None
    folds = RepeatedStratifiedKFold(n_splits=3, n_repeats=3, random_state=0)
    worse, good = (
        cross_val_score(
            LongTailClassifier(), z, y[keep], cv=folds, scoring="balanced_accuracy"
        ).mean()
        for z in (uneven, scaled)
    )
    assert worse > good - 0.01


def rarer(y: Any) -> Any:
    """Indices of a set whose later classes are rarer: of each class c a share of 3^-c."""
    rank = np.array([np.sum(y[:i] == y[i]) for i in range(len(y))])
    return np.flatnonzero(rank < np.bincount(y)[y] * 3.0 ** -y.astype(float))


def test_a_sparse_table_with_units() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [150, 30, 10])
    shown = np.eye(3)[np.where(rng.random(len(y)) < 0.8, y, rng.integers(0, 3, len(y)))]
    x = np.c_[shown, 1e4 * rng.exponential(size=len(y))]
    dense = LongTailClassifier(standardize=True, tol=1e-6, max_iter=1000).fit(x, y)
    sparse = LongTailClassifier(tol=1e-6, max_iter=1000).fit(csr_matrix(x), y)
    assert_allclose(sparse.scale_, x.std(axis=0))
    assert (sparse.predict(csr_matrix(x)) == dense.predict(x)).all()
    stream = LongTailClassifier(random_state=0).partial_fit(csr_matrix(x), y, [0, 1, 2])
    assert_allclose(stream.scale_, x.std(axis=0))


def test_standardised_columns_are_a_scaler_and_logistic_regression(data: Any) -> None:
    """The stated conversion: C on d standardised columns is C / d of LogisticRegression."""
    x = data.x * 10.0 ** np.arange(6)
    ours = LongTailClassifier("ce", C=3.0, tol=1e-8).fit(x, data.y)
    theirs = LogisticRegression(C=3.0 / 6, tol=1e-8, max_iter=1000)
    theirs = make_pipeline(StandardScaler(), theirs).fit(x, data.y)
    test = data.test * 10.0 ** np.arange(6)
    assert_allclose(ours.predict_proba(test), theirs.predict_proba(test), atol=1e-6)


@pytest.mark.parametrize(
    ("columns", "factor", "changed", "standardised"),
    [
        (300, 1e-3, 10, False),  # units of a network that are nearly dead
        (300, 1e-3, 40, True),
        (300, 1e3, 1, True),
        (30, 1e-3, 1, True),  # a table
    ],
)
def test_units_that_are_nearly_dead_do_not_count(
    columns: int, factor: float, changed: int, standardised: bool
) -> None:
    x = np.random.default_rng(0).normal(size=(60, columns)).clip(0)
    x[:, :changed] *= factor
    model = LongTailClassifier("ce").fit(x, np.arange(60) % 2)
    assert (model.scale_ is not None) == standardised


@pytest.mark.parametrize(("columns", "chosen"), [(30, 20.0), (255, 20.0), (256, 5.0)])
def test_the_default_of_c_goes_by_the_number_of_features(columns: int, chosen: float) -> None:
    x = np.random.default_rng(0).normal(size=(40, columns))
    y = np.arange(40) % 2
    default = LongTailClassifier("ce").fit(x, y)
    assert pytest.approx(chosen) == default.C_
    np.testing.assert_array_equal(default.coef_, LongTailClassifier("ce", C=chosen).fit(x, y).coef_)
    assert pytest.approx(chosen) == LongTailClassifier("ce").partial_fit(x, y, [0, 1]).C_
    assert pytest.approx(0.5) == LongTailClassifier("ce", C=0.5).fit(x, y).C_


def test_gml_on_few_samples_of_many_features() -> None:
    x = np.random.default_rng(0).normal(size=(30, 5000)) + np.repeat([0, 1, 2], 10)[:, None]
    y = np.repeat([0, 1, 2], 10)
    began = time.process_time()
    model = LongTailClassifier("gml", random_state=0).fit(x, y)
    assert time.process_time() - began < 2
    assert model.score(x, y) == 1
    # The span of the samples, as the same samples in a basis of that span.
    basis = np.linalg.qr(x.T)[0]
    small = Mixture(
        torch.from_numpy(x @ basis), torch.from_numpy(y), model.prior_, 0, shrinkage=1.0
    )
    large = Mixture(torch.from_numpy(x), torch.from_numpy(y), model.prior_, 0, shrinkage=1.0)
    assert_allclose(
        large.scores(torch.from_numpy(x)), small.scores(torch.from_numpy(x @ basis)), atol=1e-8
    )


def test_gml_does_not_import_the_compiler() -> None:
    code = (
        "import sys; from longtail.sklearn import LongTailClassifier;"
        "LongTailClassifier('gml').fit([[0.0], [0.1], [1.0]], [0, 0, 1]).predict([[0.5]]);"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_log_probabilities(data: Any) -> None:
    model = fitted("logit_adjust", data)
    assert_allclose(np.exp(model.predict_log_proba(data.test)), model.predict_proba(data.test))
    far = 1e4 * data.test
    assert (model.predict_proba(far) == 0).any()
    assert np.isfinite(model.predict_log_proba(far)).all()
    given = model.predict_log_proba(data.test, target_prior="source")
    assert_allclose(np.exp(given), model.predict_proba(data.test, target_prior="source"))

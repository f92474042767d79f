"""fit_head: the function under LongTailClassifier, for use without scikit-learn."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from longtail.prior import ClassPrior
from longtail.probe import Linear, fit_head
from longtail.sklearn import LongTailClassifier


@pytest.mark.parametrize("method", ["logit_adjust", "lade", "ce", "gml"])
def test_the_estimator_is_fit_head(method: str, data: Any) -> None:
    target = torch.from_numpy(np.unique(data.y, return_inverse=True)[1])
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    fitted = fit_head(
        torch.from_numpy(data.x), target, ClassPrior.from_labels(target), method, seed=seed
    )
    model = LongTailClassifier(method, random_state=3).fit(data.x, data.y)
    found = fitted.logits(torch.from_numpy(data.test)).numpy()
    assert_allclose(found, model.decision_function(data.test))
    assert_allclose(fitted.expressed_prior, model.expressed_prior_)
    assert fitted.converged
    assert fitted.scale is None


def test_a_linear_head_goes_into_a_layer(data: Any) -> None:
    unit = 10.0 ** np.arange(6)
    target = torch.from_numpy(np.unique(data.y, return_inverse=True)[1])
    x, test = torch.from_numpy(data.x * unit), torch.from_numpy(data.test * unit)
    fitted = fit_head(x.float(), target, ClassPrior.from_labels(target), "lade")
    assert isinstance(fitted.head, Linear)
    assert fitted.scale is not None
    layer = nn.Linear(6, 4)
    layer.load_state_dict({"weight": fitted.head.weight, "bias": fitted.head.bias})
    with torch.no_grad():
        torch.testing.assert_close(layer(test.float()), fitted.logits(test.float()))


def test_invalid_method() -> None:
    with pytest.raises(ValueError, match=r"method must be one of .* got 'logit_ajust'"):
        fit_head(torch.zeros(2, 1), torch.tensor([0, 1]), ClassPrior([1, 1]), "logit_ajust")


@pytest.mark.parametrize(
    ("method", "settings", "rule"),
    [
        ("gml", {"keys": 2}, ">= the 3 classes, got 2"),
        ("gml", {"keys": np.nan}, "finite, got nan"),
        ("gml", {"width": 0}, ">= 1, got 0"),
        ("gml", {"width": 2.5}, "a whole number, got 2.5"),
        ("gml", {"shrinkage": 0.0}, r"in \(0, 1\], got 0.0"),
        ("gml", {"temperature": np.inf}, "> 0 and finite, got inf"),
        ("bcl", {"epochs": 1.5}, "a whole number, got 1.5"),
        ("bcl", {"batch_size": np.nan}, ">= 1 and finite, got nan"),
    ],
)
def test_settings_that_make_no_sense(method: str, settings: dict[str, Any], rule: str) -> None:
    x, target = torch.randn(6, 4), torch.arange(6) % 3
    with pytest.raises(ValueError, match=f"{next(iter(settings))} of {method} must be {rule}"):
        fit_head(x, target, ClassPrior.from_labels(target), method, settings=settings)

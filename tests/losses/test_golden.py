"""Agreement with the authors' own code: value and every gradient of the golden vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from longtail import ClassPrior, losses

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def run(case: dict[str, Tensor], loss: str) -> Tensor:
    log_prior = ClassPrior(case["class_counts"]).log_prior
    setting = {name: value.item() for name, value in case.items() if value.ndim == 0}
    if loss == "gml":
        return losses.gml_loss(
            case["query"],
            case["key"],
            case["key_labels"],
            case["logits"],
            case["target"],
            log_prior,
            case["log_temperature"],
            query_index=case["query_index"],
            key_index=case["key_index"],
            teacher_logits=case.get("teacher_logits"),
            alpha=1.0 if "teacher_logits" in case else 0.0,
            logit_scale=setting["logit_scale"],
        )
    if loss == "bcl":
        return losses.balanced_contrastive_loss(
            case["features"], case["prototypes"], case["target"], temperature=setting["temperature"]
        )
    if loss == "lade":
        return losses.lade_regularizer(
            case["logits"], case["target"], log_prior, remine_lambda=setting["remine_lambda"]
        )
    if loss == "paco":
        names = ("queue_size", "alpha", "beta", "gamma", "temperature")
        return losses.paco_loss(
            case["features"],
            case["labels"],
            case["logits"],
            log_prior,
            **{name: setting[name] for name in names},
        )
    assert loss == "logit_adjust"
    return losses.logit_adjusted_loss(case["logits"], case["target"], log_prior, tau=setting["tau"])


def load(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    case = {name: torch.as_tensor(value) for name, value in np.load(path).items()}
    if "grad_log_temperature" in case:
        case["log_temperature"] = case["temperature"].log().reshape(1)
    for name in [name for name in case if f"grad_{name}" in case]:
        case[name] = case[name].to(dtype).requires_grad_()
    return case


def test_golden_vectors_are_all_there() -> None:
    assert len(GOLDEN) == 30


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_an_autocast_around_it_changes_nothing(path: Path) -> None:
    loss = path.stem.rsplit("_", 1)[0]
    case, inside = load(path, torch.float32), load(path, torch.float32)
    expected = run(case, loss)
    expected.backward()
    with torch.autocast("cpu", torch.bfloat16):
        value = run(inside, loss)
    value.backward()
    assert torch.equal(value, expected)
    for name in [name for name in case if f"grad_{name}" in case]:
        assert torch.equal(inside[name].grad, case[name].grad), name


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_agrees_with_the_published_code(path: Path, dtype: torch.dtype) -> None:
    case = load(path, dtype)
    loss = run(case, path.stem.rsplit("_", 1)[0])
    loss.backward()
    assert loss.dtype == dtype
    tolerance = TOLERANCE[dtype]
    assert abs(loss.item() - case["loss"].item()) <= tolerance * abs(case["loss"].item())
    for name in [name for name in case if f"grad_{name}" in case]:
        expected = case[f"grad_{name}"]
        difference = (case[name].grad.double() - expected).abs().max()
        assert difference <= tolerance * expected.abs().max(), name

"""Calibration on so many float32 samples that single precision would lose the curvature."""

import pytest
import torch

from longtail.shift import fit_calibration
from longtail.shift.estimation.posterior import working_type


@pytest.mark.parametrize(
    ("samples", "classes", "kind"), [(1_000_000, 5, "vs"), (430_000, 10, "bcts")]
)
def test_float32_and_float64_agree(samples: int, classes: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    prior = 100.0 ** -(torch.arange(classes).double() / (classes - 1))
    prior /= prior.sum()
    means = torch.randn(classes, 32, generator=generator)
    labels = torch.multinomial(prior, samples, replacement=True, generator=generator)
    x = means[labels] + 1.5 * torch.randn(samples, 32, generator=generator)
    logits = x @ means.T / 2 + prior.log().float()
    assert working_type(logits) == torch.float32
    single, double = (
        fit_calibration(values, labels, prior, kind=kind)  # type: ignore[arg-type]
        for values in (logits, logits.double())
    )
    # Both stop where a step gains less than a thousandth of a nat, of 16,000.
    torch.testing.assert_close(single.scale, double.scale, atol=1e-3, rtol=0.0)
    torch.testing.assert_close(single.bias, double.bias, atol=3e-3, rtol=0.0)

"""So many float32 samples that sums in single precision would lose what is sought."""

import pytest
import torch

from longtail.shift import fit_calibration
from longtail.shift.estimation.confusion import Confusion
from longtail.shift.estimation.em import em_prior
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


def test_the_estimate_and_the_confusion_matrix_of_a_million_float32_samples() -> None:
    """A warning is an error: EM settles, and where it does with float64."""
    generator = torch.Generator().manual_seed(0)
    prior = torch.tensor([0.7, 0.2, 0.1])
    labels = torch.multinomial(prior.flip(0), 1_000_000, replacement=True, generator=generator)
    logits = 3 * torch.nn.functional.one_hot(labels, 3) + torch.randn(
        len(labels), 3, generator=generator
    )
    single = (logits + prior.log()).softmax(dim=1)
    found = em_prior(single, prior)
    torch.testing.assert_close(found, em_prior(single.double(), prior), atol=1e-5, rtol=0.0)
    exact = torch.stack([single[labels == c].double().mean(dim=0) for c in range(3)], dim=1)
    matrix = Confusion(single, labels, single).matrix
    torch.testing.assert_close(matrix.double(), exact, atol=1e-7, rtol=0.0)

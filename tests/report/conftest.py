import pytest
import torch

from longtail import ClassPrior
from longtail.metrics import score_samples
from longtail.report import RunData


@pytest.fixture
def made_up_run():
    """Makes a run with realistic metrics; equal arguments make equal runs."""

    def make(
        name="ce", classes=10, samples=20, seed=0, names=None, counts=None, strength=2, **more
    ):
        generator = torch.Generator().manual_seed(seed)
        counts = counts or [max(2, int(500 * 100 ** (-c / classes))) for c in range(classes)]
        labels = torch.arange(classes).repeat_interleave(samples)
        logits = torch.randn(len(labels), classes, generator=generator)
        logits[torch.arange(len(labels)), labels] += strength
        history = [
            {"epoch": e, "loss": 2.0 / (e + 1), "lr": 0.1, "temperature": 0.1} for e in range(5)
        ]
        settings = {
            "class_names": names or [f"class {c}" for c in range(classes)],
            "prior": ClassPrior(counts),
            "scores": score_samples(logits, labels),
            "config": {"method": {"name": name}, "lr": 0.1, "data": {"source": "digits-lt"}},
            "history": history,
            "environment": {"command": ["longtail", "train", "my data"], "python": "3.12"},
            "expressed": "source",
        }
        return RunData(name, **{**settings, **more})

    return make

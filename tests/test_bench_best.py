"""The measurement of additions to GML, at a tiny size."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from longtail.data import DataConfig

CLASSES, IMAGES = 10, 60


@pytest.fixture
def best(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with ten classes of 60 training images in place of CIFAR-100."""
    draw = np.random.default_rng(0)
    labels = draw.permutation(np.repeat(np.arange(CLASSES), IMAGES))
    images = draw.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    data = SimpleNamespace(data=images, targets=labels.tolist(), classes=[*"abcdefghij"])
    monkeypatch.setattr("torchvision.datasets.CIFAR100", lambda root: data)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    monkeypatch.delitem(sys.modules, "best", raising=False)
    module = importlib.import_module("best")
    monkeypatch.setattr(module, "HELD_OUT", 10)
    monkeypatch.setattr(module, "IMBALANCE", 10)
    return module


def test_judged_images_are_held_out_and_balanced(best: ModuleType) -> None:
    data = best.held_out(DataConfig("best.held_out", seed=3))
    assert data.test is None
    assert not set(data.train.index.tolist()) & set(data.val.index.tolist())
    assert torch.bincount(data.val.labels).tolist() == [10] * CLASSES
    assert data.prior.counts.tolist()[0] == 50
    assert data.prior.counts.tolist()[-1] == 5
    assert not torch.equal(
        data.train.index, best.held_out(DataConfig("best.held_out", seed=4)).train.index
    )


def test_each_part_is_tried_alone_and_left_out(best: ModuleType) -> None:
    assert dict(best.variants(["sam"])) == {"gml": [], "sam": ["sam"]}
    assert [*dict(best.variants(["sam", "average"]))] == ["gml", "sam", "average", "all"]
    tried = dict(best.variants(best.PARTS))
    assert len(tried) == 10
    assert tried["all"] == [*best.PARTS]
    assert tried["without-teachers"] == ["margins", "average", "sam"]


@pytest.mark.filterwarnings("ignore:.*one class only")
def test_a_measurement_and_its_repetition(
    best: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "best.json"
    words = f"best.py --root any --epochs-scale 0.005 --parts margins --runs {runs} --out {out}"
    monkeypatch.setattr(sys, "argv", words.split())
    best.main()
    results = json.loads(out.read_text())
    base, margins = results["runs"][1:]
    assert [row["name"] for row in results["runs"]] == ["teacher", "gml", "margins"]
    assert base["gain"] == "0.0 ± 0.0"
    assert margins["settings"]["method"]["max_margin"] == 0.1
    assert base["settings"]["method"]["max_margin"] == 0
    assert margins["settings"]["teacher"] == base["settings"]["teacher"]
    assert all(row["epochs"] == 1 and 0 <= row["accuracy"] <= 100 for row in results["runs"])

    monkeypatch.setattr("longtail.training.loop.train_step", None)  # finished runs are not repeated
    best.main()
    assert json.loads(out.read_text())["runs"] == results["runs"]

"""Which errors the command line prints as one line, and which keep their traceback."""

import sys
import warnings
from pathlib import Path

import pytest

from longtail.cli import main

MODULE = """
import numpy as np
import torch
from torch import nn

from longtail.data import DataConfig
from longtail.errors import InputError
from longtail.losses import ClassificationLoss
from longtail.methods import PlainClassifier
from longtail.methods.base import Method
from longtail.models import Backbone, ImageClassifier, create_head


class NumpyLoss(ClassificationLoss):
    expresses = "source"

    def per_sample(self, logits, target):
        np.zeros(2) + np.zeros(3)


class TorchLoss(ClassificationLoss):
    expresses = "source"

    def __init__(self, prior, *, width: int = 2):
        super().__init__(prior)
        torch.zeros(width) + torch.zeros(3)

    def per_sample(self, logits, target):
        return logits.sum(1)


class RefusingLoss(ClassificationLoss):
    expresses = "source"

    def __init__(self, prior, *, width: int = 2):
        super().__init__(prior)
        raise InputError(f"width must be 3, got {width}")

    def per_sample(self, logits, target):
        return logits.sum(1)


class Step(Method):
    mixes = False
    expresses = "source"

    def __init__(self, prior, backbone):
        super().__init__()
        head = create_head("linear", backbone.num_features, prior.num_classes)
        self.model = ImageClassifier(backbone, head)

    def forward(self, views, target, index):
        raise ValueError("a fault of the step")


class Net(Backbone):
    def __init__(self):
        super().__init__(4, (0.5,) * 3, (0.5,) * 3)
        self.layer = nn.Linear(3, 4)

    def encode(self, images):
        return np.linalg.inv(np.zeros((2, 2)))


def source(config):
    raise ValueError("a fault of the source")


def nothing(config):
    return None


no_function = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("own", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


SHORT = ["--epochs", "1", "--device", "cpu", "--out", "run"]


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (["digits-lt", "--method", "own.NumpyLoss"], ValueError, "broadcast"),
        (["digits-lt", "--method", "own.TorchLoss"], RuntimeError, "size of tensor"),
        (["digits-lt", "--method", "own.Step"], ValueError, "a fault of the step"),
        (["digits-lt", "--method", "ce", "--backbone", "own.Net"], Exception, "Singular matrix"),
        (["own.source", "--method", "ce"], ValueError, "a fault of the source"),
        (["digits-lt", "--method", "broken.Loss"], ModuleNotFoundError, "no_such_package"),
        (
            ["digits-lt", "--method", "gml", "--teacher", "train", "--backbone", "own.Net"],
            Exception,
            "Singular matrix",
        ),
    ],
)
def test_a_fault_of_a_users_own_code_keeps_its_traceback(
    words: list[str], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        main(["train", *words, *SHORT])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits-lt", "--method", "own.RefusingLoss"], "width must be 3, got 2"),
        (["digits-lt", "--data.imbalnce", "10"], "did you mean '--data.imbalance'"),
        (["digits.csv"], "no such file"),
        (["digits-lt", "--method", "own.NoLoss"], "module 'own' has no 'NoLoss'"),
        (["digits-lt", "--method", "none.Loss"], "no module named 'none' in the current folder"),
        (["no_such.source", "--method", "ce"], "no module named 'no_such' in the current folder"),
        (["none.source", "--method", "ce"], "no module named 'none' in the current folder"),
        (["own.nothing", "--method", "ce"], "source 'own.nothing' must return a Dataset"),
        (["own.no_function", "--method", "ce"], "must be a function of a DataConfig, got 3"),
        (["digits-lt", "--method", "own.TorchLoss", "--method.loss.width", "x"], "a whole number"),
        (["digits-lt", "--precision", "int7"], "precision 'int7' is not available"),
        (["digits-lt", "--device", "abacus"], "device 'abacus'"),
    ],
)
def test_an_error_of_input_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", "run", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_file_in_the_way_of_the_run_folder_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("in the way")
    words = ["train", "digits-lt", "--method", "ce", "--epochs", "1", "--out", "run/below"]
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "out must be a folder, run is a file" in said


def test_warnings_outside_a_command_are_as_they_were() -> None:
    before = warnings.showwarning
    assert main(["--version"]) == 0
    assert warnings.showwarning is before

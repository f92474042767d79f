"""CONTRIBUTING.md as a newcomer reads it: its blocks are a module, its commands run."""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from longtail.cli import main
from longtail.training import Run

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
COMMANDS = [
    line.removeprefix("$ ")
    for kind, text in BLOCKS
    if kind == "console"
    for line in text.splitlines()
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a newcomer, with the module of the page."""
    module = "\n\n".join(text for kind, text in BLOCKS if kind == "python")
    (tmp_path / "my_paper.py").write_text(module, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_paper", None)


def test_the_page_shows_all_four() -> None:
    options = " ".join(COMMANDS)
    for wanted in (
        "--method my_paper.M",
        "--method my_paper.A",
        "--backbone my_paper.",
        "train my_paper.",
    ):
        assert wanted in options


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_run(command: str, folder: Path) -> None:
    program, *words = shlex.split(command)
    assert program == "longtail"
    assert main(words) == 0
    if "--out" in words:
        run = Run(words[words.index("--out") + 1])
        assert "my_paper" in str(run.config)
        assert 0 <= run.metrics["accuracy"] <= 1


def test_a_data_set_is_handed_over(folder: Path) -> None:
    sys.path.append(str(folder))
    run = importlib.import_module("my_paper").train_on_squares()
    assert run.config["data"]["source"] == "squares"
    assert run.predictions().class_names == ("dark", "grey", "bright")

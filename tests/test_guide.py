"""The guide, block by block, as a reader would run it; other pages' Python blocks must compile."""

import re
import shlex
import warnings
from pathlib import Path

import pytest
import torch

from longtail.cli import main

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def test_every_block_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for kind, text in blocks("guide.md"):
        if kind == "python":
            exec(compile(text, "guide.md", "exec"), names)
            continue
        assert kind == "console"
        for line in text.splitlines():
            program, *words = shlex.split(line.removeprefix("$ "))
            assert program == "longtail"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the exporter says of itself
                assert main(words) == 0, line


def test_what_the_guide_says_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 1's counts; section 3's groups."""
    monkeypatch.chdir(tmp_path)
    (_, first), *_ = blocks("guide.md")
    exec(compile(first, "guide.md", "exec"), {})
    counts = [len(list(Path(f"digits/train/{digit}").iterdir())) for digit in range(10)]
    assert (counts[0], counts[9]) == (110, 4)
    assert {len(list(Path(f"digits/test/{digit}").iterdir())) for digit in range(10)} == {30}
    new = [len(list(Path("monday").glob(f"{digit}-*.png"))) for digit in range(10)]
    assert new[9] > 5 * new[0] > 0


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_python_blocks_compile(page: str) -> None:
    for kind, text in blocks(page):
        if kind == "python" and not text.startswith(">>>"):  # a session is not a program
            compile(text, page, "exec")


def test_every_block_on_losses_runs() -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for kind, text in blocks("losses.md"):
        if kind == "python":
            exec(compile(text, "losses.md", "exec"), names)
    assert torch.isfinite(names["total"])

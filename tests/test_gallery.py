"""The examples of the gallery as files; `make docs` runs them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "gallery"))
import render  # noqa: E402

sys.path.remove(str(ROOT / "gallery"))
SCRIPTS = render.scripts()


def test_there_are_enough_and_all_are_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert len(SCRIPTS) >= 8
    assert all(f"gallery/{script.stem}.md" in nav for script in SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_begins_with_a_title_and_has_a_picture(script: Path) -> None:
    (kind, text), *others = render.cells(script.read_text(encoding="utf-8"))
    assert kind == "markdown"
    assert text.startswith("# ")
    code = [text for kind, text in others if kind == "code"]
    assert any("plt." in text for text in code)
    for text in code:
        compile(text, script.name, "exec")


def test_output_and_pictures_of_an_example(tmp_path: Path) -> None:
    script = tmp_path / "sum.py"
    script.write_text(
        "# order: 1\n# %% [markdown]\n# # A sum\n# %%\nprint(1 + 1)\n# %%\n"
        "from matplotlib import pyplot\n_ = pyplot.plot([1, 2])\n"
    )
    page = render.run(script)
    assert page.title == "A sum"
    assert "```text\n2\n```" in page.markdown
    assert "![A sum](sum-1.png)" in page.markdown
    assert page.pictures["sum-1.png"].startswith(b"\x89PNG")
    assert "[![A sum](sum-1.png)](sum.md)" in render.index([page])


def test_an_error_names_the_example(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("# order: 1\n# %% [markdown]\n# # Broken\n# %%\n1 / 0\n")
    with pytest.raises(RuntimeError, match=r"broken\.py failed(.|\n)*ZeroDivisionError"):
        render.run(script)


@pytest.mark.parametrize("path", sorted((ROOT / "gallery").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_is_its_example(path: Path) -> None:
    """If this fails: python gallery/render.py --notebook NAME."""
    assert path.read_text(encoding="utf-8") == render.notebook(path.with_suffix(".py"))
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["cells"][1]["cell_type"]) == (4, "code")

"""The examples of the gallery as files; `make docs` runs them."""

import importlib.metadata
import json
import re
import sys
import tomllib
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


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_follows_the_format_and_compiles(script: Path) -> None:
    """The schema of nbformat 4.5."""
    content: dict[str, Any] = json.loads(render.notebook(script))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in content["cells"]]
    assert len({*ids}) == len(ids) > 3
    for cell in content["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert {*cell} == keys | {"execution_count", "outputs"}
            lines = [line for line in cell["source"] if not line.startswith("!pip ")]
            compile("".join(lines), script.name, "exec")
        else:
            assert (cell["cell_type"], {*cell}) == ("markdown", keys)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_installs_what_it_imports(script: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install = "".join(json.loads(render.notebook(script))["cells"][1]["source"])
    installed = ["longtail", "matplotlib", *project["dependencies"]]
    if "[integrations]" in install:
        installed += project["optional-dependencies"]["integrations"]
    names = {re.match(r"[\w.-]+", line)[0] for line in installed}  # type: ignore[index]
    imports = re.findall(
        r"^(?:import|from) (\w+)", script.read_text(encoding="utf-8"), re.MULTILINE
    )
    packages = importlib.metadata.packages_distributions()
    for name in {*imports} - sys.stdlib_module_names:
        assert {found.lower() for found in packages.get(name, [name])} & names, name


@pytest.mark.parametrize("path", sorted((ROOT / "gallery").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_is_its_example(path: Path) -> None:
    """If this fails: python gallery/render.py --notebook NAME."""
    assert path.read_text(encoding="utf-8") == render.notebook(path.with_suffix(".py"))

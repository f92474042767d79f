"""Every method has a page, whose figures are those of the result files."""

import sys
from pathlib import Path
from typing import Any

import pytest

from longtail import losses, methods

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path for path in (ROOT / "docs/methods").glob("*.md")}


@pytest.fixture(scope="module")
def bench() -> Any:
    sys.path.insert(0, str(ROOT / "bench"))
    import methods as module

    yield module
    sys.path.remove(str(ROOT / "bench"))
    for name in ("methods", "pages"):
        sys.modules.pop(name)


def test_every_method_has_a_page(bench: Any) -> None:
    known = {
        found.name
        for package in (losses, methods)
        for found in (getattr(package, name) for name in package.__all__)
        if isinstance(getattr(found, "name", None), str)
    }
    assert set(PAGES) == set(bench.PAGES) == known - {"supcon_features"}
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"methods/{name}.md" in nav for name in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_its_figures_are_those_of_the_results(page: str, bench: Any) -> None:
    """If this fails after a new result: python bench/methods.py."""
    text = PAGES[page].read_text(encoding="utf-8")
    assert "\n".join(bench.figures(page)) in text


def test_the_decision_page_has_the_figures_of_the_results(bench: Any) -> None:
    text = (ROOT / "docs/which.md").read_text(encoding="utf-8")
    for block in (bench.on_features, bench.on_tables, bench.from_scratch):
        assert "\n".join(block()) in text

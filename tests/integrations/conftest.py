"""The page on other trainers, whose blocks the tests run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs/integrations.md"
Names = dict[str, Any]


@pytest.fixture(scope="session")
def blocks() -> Callable[[str], list[str]]:
    """The Python blocks of a section of the page."""

    def of(title: str) -> list[str]:
        sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
        (text,) = (part for part in sections if part.startswith(title + "\n"))
        return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

    return of


@pytest.fixture(scope="session")
def run_blocks(blocks: Callable[[str], list[str]]) -> Callable[[str, Names], Names]:
    """Runs the Python blocks of a section with some names, and returns all names."""

    def run(title: str, names: Names) -> Names:
        for block in blocks(title):
            exec(compile(block, f"integrations.md, {title}", "exec"), names)
        return names

    return run

"""The diagram in docs/architecture.md: every module in its layer.

    python bench/architecture.py

Modules import from the layers below them. Layers come from the import rules in pyproject.toml,
sentences from the modules' docstrings.
"""

import ast
import tomllib
from pathlib import Path

from pages import write_between

PAGE = Path("docs/architecture.md")
PACKAGE = Path("src/longtail")
WIDTH = 15


def layers() -> list[list[str]]:
    """Modules by layer, the topmost layer first: a module may import from the layers below it."""
    rules = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = rules["tool"]["importlinter"]["contracts"]
    return [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]


def sentence(name: str) -> str:
    """First sentence of a module's docstring."""
    file = PACKAGE / name / "__init__.py"
    source = (file if file.is_file() else PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.split("\n")[0].rstrip(".")


def picture() -> list[str]:
    """One block per layer, one line per module."""
    lines = []
    for number, layer in enumerate(layers()):
        lines += ["" if number == 0 else f"{'':6}|"]
        lines += [f"{name:<{WIDTH}}  {sentence(name)}" for name in layer]
    return ["```text", *lines[1:], "```"]


if __name__ == "__main__":
    write_between(PAGE, "bench/architecture.py", picture())

"""Outside of the package, one line of code knows of segmentation: the one that registers the task.

The package's public face lists it, and the reader of folders knows how folders of masks are called
and which option they need.
"""

import ast
import re
from pathlib import Path

import longtail

SOURCE = Path(longtail.__file__).parent
OWN = re.compile(r"segmentation|Pixel[A-Z]|pixel_")
IN_WORDS = {"__init__.py", "data/layout.py"}


def words(path: Path) -> list[tuple[int, str]]:
    """Lines with names, imports and texts of a file's code; docstrings are left out."""
    found: list[tuple[int, str]] = []
    docstrings = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            docstrings.append(node.body[0].value)  # type: ignore[attr-defined]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [] if node in docstrings else [(node.lineno, node.value)]
        elif isinstance(node, ast.Name | ast.Attribute):
            found.append((node.lineno, node.id if isinstance(node, ast.Name) else node.attr))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(name.name for name in node.names)]
            found += [(node.lineno, name) for name in names]
    return found


def test_one_line_outside_knows_of_segmentation() -> None:
    knows = {
        path.relative_to(SOURCE).as_posix(): lines
        for path in SOURCE.rglob("*.py")
        if "segmentation" not in path.relative_to(SOURCE).parts
        and (lines := {line for line, word in words(path) if OWN.search(word)})
    }
    assert knows.keys() == {"tasks.py", *IN_WORDS}
    assert len(knows["tasks.py"]) == 1


def test_the_search_finds_what_it_looks_for() -> None:
    found = words(SOURCE / "segmentation" / "task.py")
    assert sum(bool(OWN.search(word)) for _, word in found) > 20

"""Names that the commands accept, with one line about each."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from longtail.errors import InputError
from longtail.recipes import RECIPES
from longtail.tasks import TASKS, check_task, find_task

HERE = Path(__file__).parent
Kind = Literal["methods", "backbones", "views", "data", "recipes", "weights"]
KINDS = get_args(Kind)


def list_names(kind: Kind = "methods", task: str = "classification") -> dict[str, str]:
    """Lists methods, backbones, views, data sets, recipes or weights by name.

    Args:
        kind: what to list
        task: task to list them for

    Returns: one line about each, by name.
    """
    check_task(task)
    if not (isinstance(kind, str) and kind in KINDS):
        raise InputError(f"kind must be one of {list(KINDS)}, got {kind!r}")
    if kind == "methods":
        return dict(sorted(_methods(task)))
    if kind == "weights":
        from longtail.weights import list_weights  # which imports PyTorch

        return list_weights()
    if kind == "recipes":
        return {
            recipe.command: f"cost: {recipe.cost}; expected: {recipe.expected}"
            for recipe in RECIPES
        }
    return {name: _summary(entry) for name, entry in find_task(task).catalogue(kind).items()}


def _methods(task: str) -> Iterator[tuple[str, str]]:
    """Names of methods and losses, and when to use them, read from their source.

    Importing them would take seconds, since they import PyTorch.
    """
    for folder in ("losses", TASKS[task][1]):
        for path in sorted((HERE / folder).glob("*.py")):
            for item in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(item, ast.ClassDef):
                    values = dict(_strings(item))
                    if name := values.get("name"):
                        yield name, values.get("use") or _first(ast.get_docstring(item))


def _strings(item: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Class attributes whose value is a string."""
    for line in item.body:
        if isinstance(line, ast.Assign | ast.AnnAssign) and isinstance(line.value, ast.Constant):
            (target,) = [line.target] if isinstance(line, ast.AnnAssign) else line.targets
            yield ast.unparse(target), str(line.value.value)


def _summary(entry: Any) -> str:
    return entry if isinstance(entry, str) else _first(inspect.getdoc(entry))


def _first(text: str | None) -> str:
    """First paragraph of a docstring as one line."""
    return " ".join((text or "").split("\n\n")[0].split())

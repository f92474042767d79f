"""Names that people type."""

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from longtail.errors import InputError


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the known one that is nearest, or nothing.

    Example:
        >>> "got 'wake'" + nearest("wake", ["weak", "auto"])
        "got 'wake'; the nearest is 'weak'"
        >>> nearest("xyz", ["weak", "auto"])
        ''
    """
    near = get_close_matches(name, known, n=1)
    return f"; the nearest is {near[0]!r}" if near else ""


def imported(path: str, what: str) -> Any | None:
    """What an import path `package.module.Name` stands for; None where there is no such module.

    Args:
        path: the import path, or another name, which may have dots too.
        what: it is to be, for the error.

    Raises:
        ValueError: when the module is there, but has no such name or fails when it is imported.
    """
    module, _, attribute = path.rpartition(".")
    if not module:
        return None
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and f"{module}.".startswith(f"{absent}."):
            return None
        raise InputError(f"{what} {path!r} cannot be imported: {error}") from error

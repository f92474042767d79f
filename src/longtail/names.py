"""Names given by a user: the nearest known one, and import paths."""

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from longtail.errors import InputError


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: what may have been meant, or nothing.

    Examples:
        >>> "got 'wake'" + nearest("wake", ["weak", "auto"])
        "got 'wake'; did you mean 'weak'?"
        >>> nearest("my_paper.Loss", ["weak", "auto"])
        "; no module named 'my_paper' in the current folder or on the path"
        >>> nearest("xyz", ["weak", "auto"])
        ''
    """
    module = name.rpartition(".")[0]
    if module and not name.startswith("-"):
        return f"; no module named {module!r} in the current folder or on the path"
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def imported(path: str, what: str) -> Any | None:
    """The object at an import path `package.module.Name`; None where there is no such module.

    Args:
        path: the import path, or another name, which may have dots too.
        what: what the object is for, in the error.

    Raises:
        InputError: when the module has no such name. Errors of the module itself are not caught.
    """
    module, _, attribute = path.rpartition(".")
    if not module or not all(word.isidentifier() for word in path.split(".")):
        return None
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return None
        raise
    if not hasattr(found, attribute):
        raise InputError(f"{what} {path!r}: module {module!r} has no {attribute!r}")
    return getattr(found, attribute)

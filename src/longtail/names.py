"""Names given by a user: suggestions for unknown ones, and import paths that need trust."""

import importlib
import sys
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from longtail.errors import InputError


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: a suggestion, or nothing.

    Examples:
        >>> "got 'wake'" + nearest("wake", ["weak", "auto"])
        "got 'wake'; did you mean 'weak'?"
        >>> nearest("xyz", ["weak", "auto"])
        ''
    """
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def nearest_or_module(name: str, known: Iterable[str]) -> str:
    """As `nearest`, for a name that may also be an import path.

    Examples:
        >>> nearest_or_module("my_paper.Loss", ["weak", "auto"])
        "; no module named 'my_paper' in the current folder or on the path"
    """
    if not is_import_path(name):
        return nearest(name, known)
    return f"; no module named {name.rpartition('.')[0]!r} in the current folder or on the path"


def is_import_path(name: str) -> bool:
    """Whether a name has the form `package.module.Name`.

    Examples:
        >>> [is_import_path(name) for name in ("my_paper.Loss", "ce", "data/images.csv")]
        [True, False, False]
    """
    module, _, _ = name.rpartition(".")
    return bool(module) and all(word.isidentifier() for word in name.split("."))


def imported(path: str, what: str) -> Any | None:
    """The object at an import path `package.module.Name`; None if there is no such module.

    Args:
        path: the import path, or another name, which may have dots too.
        what: what the object is for, for the message.

    Raises:
        InputError: when the module has no such name. Errors of the module itself are not caught.
    """
    module, _, attribute = path.rpartition(".")
    if not is_import_path(path):
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


def trusted_paths(trust: Any) -> tuple[str, ...]:
    """Import paths that a user trusts, which a file may then name.

    Args:
        trust: an import path, a class or function, or several of them. An object is trusted under
            every path at which an already loaded module has it.

    Raises:
        InputError: for anything else.

    Examples:
        >>> from collections import Counter
        >>> trusted_paths("my_paper.Net"), "collections.Counter" in trusted_paths([Counter])
        (('my_paper.Net',), True)
    """
    several = isinstance(trust, Iterable) and not isinstance(trust, str) and not callable(trust)
    found: list[str] = []
    for item in trust if several else [trust]:
        if isinstance(item, str):
            found.append(item)
        elif name := getattr(item, "__name__", None):
            modules = [m for m, module in sys.modules.items() if _has(module, name, item)]
            found += [f"{module}.{name}" for module in modules]
        else:
            raise InputError(f"trust must hold import paths, classes or functions, got {item!r}")
    return tuple(found)


def _has(module: Any, name: str, item: object) -> bool:
    """Whether a module has an object under a name, without loading what is loaded lazily."""
    return getattr(module, "__dict__", {}).get(name) is item


def refuse_untrusted(file: object, names: Mapping[str, str], trust: Collection[str]) -> None:
    """Rejects import paths that a file names and the user has not: importing them runs code.

    Args:
        file: the file, for the message.
        names: import paths, with what each is for, such as `backbone`.
        trust: import paths that the user trusts.

    Raises:
        InputError: names them all, and the option that allows them.
    """
    unknown = {name: what for name, what in names.items() if name not in trust}
    if unknown:
        named = " and ".join(f"the {what} {name!r}" for name, what in unknown.items())
        raise InputError(
            f"{file} names {named}, not one of longtail or timm: importing it runs its code. If "
            f"you trust that code: --trust {' '.join(unknown)} (in Python "
            f"trust={[*unknown]})"
        )

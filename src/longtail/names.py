"""Names that people type."""

from collections.abc import Iterable
from difflib import get_close_matches


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

"""Messages about many files, rows or names at once."""

from collections.abc import Sequence

from longtail.errors import InputError

NAMED = 10  # items that a message lists


def shown(text: str) -> str:
    r"""A path or name as one line, quoted and escaped if it has unprintable characters.

    Examples:
        >>> shown("birds/a b.png")
        'birds/a b.png'
        >>> print(shown("birds/a\nb.png"))
        'birds/a\nb.png'
    """
    return text if text.isprintable() else repr(text)


def counted(what: str, items: Sequence[str]) -> str:
    """A message with the number of items and the first ten of them.

    Examples:
        >>> counted("rows without a label", ["line 3", "line 8"])
        'rows without a label (2): line 3, line 8'
    """
    more = f" and {len(items) - NAMED:,} more" if len(items) > NAMED else ""
    return f"{what} ({len(items):,}): {', '.join(map(shown, items[:NAMED]))}{more}"


def report_problems(name: str, problems: Sequence[str]) -> None:
    """Raises one InputError for all problems of a data set, if there are any."""
    if len(problems) == 1:
        raise InputError(f"{name} cannot be used: {problems[0]}")
    if problems:
        raise InputError(f"{name} cannot be used:\n" + "\n".join(f"- {p}" for p in problems))

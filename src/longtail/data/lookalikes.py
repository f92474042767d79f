"""Class names that look alike."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")


def look_alikes(names: Sequence[str]) -> list[str]:
    r"""Groups of class names that a reader could take for the same.

    They differ in case, Unicode normalization, invisible characters, blanks, `_`, a `-` between
    words, or in the way that a number is written.

    Examples:
        >>> look_alikes(["Cat", "cat", "dog", "1", "1.0", "red fox", "red_fox"])
        ["'1' and '1.0'", "'Cat' and 'cat'", "'red fox' and 'red_fox'"]
        >>> look_alikes(["C", "C-", "1", "-1"])
        []
        >>> print(*look_alikes(["owl", "owl\u200b"]))
        'owl' and 'owl\u200b'
    """
    groups = defaultdict(list)
    for name in sorted(names):
        groups[_plain(name)].append(name)
    return [" and ".join(map(ascii_if_odd, group)) for group in groups.values() if len(group) > 1]


def ascii_if_odd(name: str) -> str:
    """A name in quotes, escaped if it has characters that look like others."""
    odd = unicodedata.normalize("NFC", name) != name or re.search(r"[^\S ]", name)
    return ascii(name) if odd or not name.isprintable() else repr(name)


def _plain(name: str) -> str:
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", name)).casefold()
    text = re.sub(r"(?<=\S)[\s_-]+(?=\S)|[\s_]+", " ", text).strip()
    number = re.fullmatch(r"(-?\d+)(\.0*)?", text)
    return str(int(number[1])) if number else text

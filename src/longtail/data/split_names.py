"""Common names of splits."""

import re

SPLITS = ("train", "val", "test")

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
FILLERS = frozenset(("set", "data", "dataset", "images", "image", "imgs", "img", "split", "final"))


def split_named(name: str, shared: frozenset[str] = frozenset()) -> str | None:
    """The split named by a folder or a cell of a table; None if it does not name one.

    Args:
        name: name such as `Train`, `valid`, `test_set` or `seg_train`.
        shared: words that its sibling names also contain, which are ignored.

    Examples:
        >>> [split_named(name) for name in ("Training", "VALID", "test_set", "testimony")]
        ['train', 'val', 'test', None]
        >>> split_named("seg_train", frozenset({"seg"}))
        'train'
    """
    words = [word for word in words_of(name) if word not in FILLERS and word not in shared]
    return SPLIT_WORDS.get(words[0]) if len(words) == 1 else None


def words_of(name: str) -> list[str]:
    """Runs of letters in a name, in lower case."""
    return re.findall(r"[^\W\d_]+", name.casefold())

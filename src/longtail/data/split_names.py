"""Names that people give to splits."""

import re

SPLITS = ("train", "val", "test")

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
FILLERS = frozenset(("set", "data", "dataset", "images", "image", "imgs", "img", "split", "final"))


def split_named(name: str, shared: frozenset[str] = frozenset()) -> str | None:
    """The split that a folder or a cell of a table names; None if it names none.

    Args:
        name: name such as `Train`, `valid`, `test_set` or `seg_train`.
        shared: words that the names beside it contain, too, and that are ignored.

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

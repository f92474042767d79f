"""Files that do not exist, and hints from their paths."""

import contextlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from longtail.data.paths import SCHEMES, file_of, is_url


def find_missing(paths: Sequence[str]) -> list[int]:
    """Indices of the paths that are not files, found by listing each folder once.

    URLs are skipped.
    """
    folders: dict[str, list[int]] = defaultdict(list)
    files = [file_of(path) if "#" in path else path for path in paths]
    for i, file in enumerate(files):
        if not is_url(file):
            folders[file.rpartition(os.sep)[0] or os.sep].append(i)
    missing: list[int] = []
    for folder, indices in folders.items():
        there: set[str] = set()
        with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
            there = {entry.name for entry in entries if entry.is_file()}
        missing += [i for i in indices if files[i].rpartition(os.sep)[2] not in there]
    return sorted(missing)


def similar_file(path: str) -> str:
    """End of a message about a missing file: a hint from its path, or a similar file."""
    if re.search(r"(^|/)[A-Za-z]:[\\/]", path) or "\\" in path:
        return "; these look like Windows paths"
    if re.match(r".*/[a-z0-9]+:/", path):
        return f"; these look like unsupported URLs; supported are {', '.join(SCHEMES)}"
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        return f"; there is no folder {folder}"

    def key(text: str) -> str:
        return unicodedata.normalize("NFC", text.strip()).casefold()

    names = os.listdir(folder)
    alike = [n for n in names if key(n) == key(name) or os.path.splitext(n)[0] == name]
    return f"; there is a similar file, {alike[0]!r}" if alike else ""

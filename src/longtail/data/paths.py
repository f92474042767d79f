"""Paths of images, which can be files, URLs, or parts of either."""

import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import quote, urlsplit

SCHEMES = ("http", "https", "s3", "gs", "memory")  # of the supported URLs
_MEMBER = re.compile(r"(.+\.(?:tar|pack))#(\d+)\+(\d+)", re.DOTALL)  # file, offset, size


class Part(NamedTuple):
    """Bytes of a file from `begin` to before `end`, or all of them."""

    file: str
    begin: int = 0
    end: int | None = None


def member(tar: str, offset: int, size: int) -> str:
    """Path of a file in a tar file or a pack, as `open_image` takes it.

    Examples:
        >>> member("train-00000.tar", 512, 9000)
        'train-00000.tar#512+9000'
    """
    return f"{tar}#{offset}+{size}"


def part_of(path: str) -> Part:
    """What a path names: a file, or the part of it given by a `member` path."""
    found = _MEMBER.fullmatch(path) if "#" in path else None
    if found is None:
        return Part(path)
    begin = int(found[2])
    return Part(found[1], begin, begin + int(found[3]))


def file_of(path: str) -> str:
    """The file that contains an image: the path itself, or the file it is a part of."""
    return part_of(path).file


def is_url(path: str) -> bool:
    """Whether a path is a supported URL; others, such as those of `file://`, are not.

    Examples:
        >>> is_url("HTTPS://example.org/birds.csv"), is_url("file:///etc/passwd")
        (True, False)
    """
    scheme, found, _ = path.partition("://")
    return bool(found) and scheme.lower() in SCHEMES


def join(folder: str, path: str) -> str:
    """Joins a folder or URL and a path; a path that is a URL is returned unchanged.

    After a URL, every other path is relative to it: it cannot reach another server or bucket, or a
    local file. Characters with a meaning in web URLs are escaped.

    Examples:
        >>> join("s3://birds/tables", "../images/owl 1.jpg")
        's3://birds/images/owl 1.jpg'
        >>> join("https://example.org", "/etc/owl #1.jpg")
        'https://example.org/etc/owl%20%231.jpg'
        >>> join("/data", "https://example.org/owl.jpg")
        'https://example.org/owl.jpg'
    """
    if is_url(path):
        return path
    if not is_url(folder):
        return os.path.join(folder, path)
    scheme, _, rest = folder.partition("://")
    host, _, above = rest.partition("/")
    path = path.lstrip("/")
    if scheme.lower() in ("http", "https"):
        above, path = above.partition("?")[0], quote(path)
    whole = posixpath.normpath(posixpath.join("/", above, path))
    return f"{scheme}://{host}/{whole.lstrip('/')}"


def outside_of(folder: str, paths: Sequence[str]) -> list[int]:
    """Indices of the paths, joined to a local folder, that are local files outside of it."""
    inside = os.path.join(os.path.abspath(folder), "")
    return [
        i
        for i, path in enumerate(paths)
        if not is_url(path) and not os.path.normpath(path).startswith(inside)
    ]


def folder_of(path: str) -> str:
    """Absolute path or URL of the folder of a file."""
    if not is_url(path):
        return os.path.dirname(os.path.abspath(path))
    return path.partition("?")[0].rpartition("/")[0]


def name_of(path: str) -> str:
    """Name of a file, without its folder and without the query of a URL."""
    return PurePosixPath(urlsplit(path).path).name if is_url(path) else os.path.basename(path)

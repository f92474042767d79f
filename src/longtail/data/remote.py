"""Files at URLs, requested many at a time, with retries if a server fails."""

import errno
import functools
import os
import sys
import time
from collections.abc import Sequence
from random import SystemRandom
from typing import Any
from urllib.request import getproxies

from longtail.data.paths import Part
from longtail.errors import InputError

DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further attempt
SHORT_ATTEMPTS = 3  # after which a file counts as truncated
TOGETHER = 32  # requests of a process at the same time
TIMEOUT = 30.0  # seconds without a byte from a web server
TEMPORARY = (408, 425, 429)  # transient statuses among those for wrong requests
PERMANENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ValueError)
PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}  # of PyPI, by scheme


class RefusedError(OSError):
    """A file that its server does not have or refuses.

    Args:
        url: the file.
        reason: why not.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(errno.EIO, reason, url)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.filename}: {self.reason}"


class UnreachableError(InputError):
    """A server that did not answer, or not properly, in any attempt."""


class _ShortError(OSError):
    """Fewer bytes than requested."""


def fetch(parts: Sequence[Part]) -> list[bytes | RefusedError]:
    """Contents of files, or parts of files, at URLs, in order; an error for each that is refused.

    Transient failures (no connection, a timeout, a truncated response, status 5xx or 429) are
    retried after growing pauses.

    Raises:
        UnreachableError: when one fails in this way in all attempts.
        InputError: when a package for these URLs is not installed.
    """
    found: dict[int, bytes | RefusedError] = {}
    waiting = list(range(len(parts)))
    for attempt, delay in enumerate((*DELAYS, None), 1):
        failed: list[int] = []
        for i, answer in zip(waiting, _request([parts[i] for i in waiting]), strict=True):
            content = _checked(parts[i], answer)
            if isinstance(content, bytes | RefusedError):
                found[i] = content
            elif isinstance(content, _ShortError) and attempt >= SHORT_ATTEMPTS:
                found[i] = RefusedError(parts[i].file, str(content))
            elif delay is None:
                raise UnreachableError(
                    f"{parts[i].file} cannot be read: {_reason(content)}, in each of {attempt} "
                    "attempts"
                )
            else:
                failed.append(i)
        if not failed:
            break
        waiting = failed
        assert delay is not None
        # Otherwise the processes of a run would all come back at once.
        time.sleep(delay * SystemRandom().uniform(0.5, 1.0))
    return [found[i] for i in range(len(parts))]


def _request(parts: Sequence[Part]) -> list[bytes | Exception]:
    """One request for each part; its content or an exception."""
    answers: dict[Part, bytes | Exception] = {}
    for scheme in {_scheme(part) for part in parts}:
        chosen = [part for part in parts if _scheme(part) == scheme]
        system = _file_system(scheme, os.getpid())
        contents = system.cat_ranges(
            [system._strip_protocol(part.file) for part in chosen],
            [None if part.end is None else part.begin for part in chosen],
            [part.end for part in chosen],
            on_error="return",
        )
        answers.update(zip(chosen, contents, strict=True))
    return [answers[part] for part in parts]


def _scheme(part: Part) -> str:
    return part.file.partition("://")[0].lower()


@functools.cache
def _file_system(scheme: str, process: int) -> Any:
    """The file system of a scheme; one per process, since a fork has no connections."""
    import fsspec

    options = {}
    if scheme in ("http", "https"):
        import aiohttp

        client = {
            "timeout": aiohttp.ClientTimeout(sock_connect=TIMEOUT, sock_read=TIMEOUT),
            "headers": {"Accept-Encoding": "identity"},  # parts are those of the file itself
            "trust_env": _has_settings(),
        }
        own = fsspec.config.conf.get(scheme, {}).get("client_kwargs", {})
        options = {"client_kwargs": {**client, **own}}
    try:
        system = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    except ImportError as error:
        package = PACKAGES[scheme]
        raise InputError(
            f"{scheme}:// needs the package {package}: pip install 'longtail[{scheme}]'"
        ) from error
    system.batch_size = TOGETHER
    return system


def _has_settings() -> bool:
    """Whether the environment has proxies or a netrc file for web servers.

    If aiohttp is told to look for them, it does so again for each request, in two other threads,
    which takes 0.2 of the 0.5 ms of processor time of a request for an image.
    """
    netrc = os.environ.get("NETRC", "~/_netrc" if sys.platform == "win32" else "~/.netrc")
    return os.path.exists(os.path.expanduser(netrc)) or any(
        map(getproxies().get, ("http", "https"))
    )


def _checked(part: Part, answer: bytes | Exception) -> bytes | Exception:
    """The content if it is complete; `RefusedError` if another attempt is pointless."""
    if isinstance(answer, Exception):
        return RefusedError(part.file, _reason(answer)) if _is_permanent(answer) else answer
    size = len(answer) if part.end is None else part.end - part.begin
    if len(answer) < size:
        return _ShortError(f"it is too short: {len(answer):,} of {size:,} bytes came")
    if len(answer) > size and part.begin > 0:
        return RefusedError(part.file, "the server sends whole files only, not parts of them")
    return answer[:size]


def _is_permanent(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in TEMPORARY
    return isinstance(error, PERMANENT)


def _status(error: Exception) -> int | None:
    """HTTP status of the exceptions of aiohttp and gcsfs."""
    for name in ("status", "code"):
        if isinstance(status := getattr(error, name, None), int):
            return status
    return None


def _reason(error: Exception) -> str:
    """What went wrong, in one line without the URL."""
    if (status := _status(error)) is not None:
        return f"{status} {getattr(error, 'message', '')}".strip()
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if type(error).__name__ == "ClientPayloadError":
        return "the answer was cut short"
    return " ".join(str(error).split()) or type(error).__name__

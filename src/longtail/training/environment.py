"""The environment of a run: versions, device, git state and command, without secrets."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from longtail.version import VERSION

PACKAGES = ("torch", "torchvision", "lightning-fabric", "numpy")
MASK = "***"
SECRET = re.compile(
    r"(?i)(^|[-_.])(api-?key|key|token|pass(word|wd|phrase)?|pwd|secret|credentials?|auth)s?($|[-_.])"
)
SIGNED_IN = re.compile(r"(?<=://)[^/\s@]+(?=@)")  # the user and password in a URL


def environment() -> dict[str, Any]:
    """Versions, device, git state and command of this process."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "command": shown_command(sys.argv),
        "python": platform.python_version(),
        "packages": {"longtail": VERSION}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "git": _git_state(),
    }


def shown_command(words: Sequence[str]) -> list[str]:
    """A command line that others may see: without secrets, and with relative paths where possible.

    Args:
        words: program and arguments. The value of an option whose name suggests a key, a token or a
            password is masked, as is the user in a URL.

    Examples:
        >>> shown_command(["/bin/train.py", "--token", "abc", "--wandb-key=abc", "s3://me:abc@x"])
        ['train.py', '--token', '***', '--wandb-key=***', 's3://***@x']
    """
    shown = [Path(word).name for word in words[:1]]
    hidden = False
    for word in words[1:]:
        option, equals, value = word.partition("=")
        is_option = option.startswith("-")
        if hidden and not is_option:
            shown.append(MASK)
            hidden = False
            continue
        secret = is_option and bool(SECRET.search(option.lstrip("-")))
        hidden = secret and not equals
        if is_option and equals:
            shown.append(f"{option}={MASK if secret else _shown(value)}")
        else:
            shown.append(_shown(word))
    return shown


def _shown(word: str) -> str:
    """A word without the user of a URL; a path relative to the current or home folder."""
    if os.path.isabs(word):
        for base, sign in ((Path.cwd(), ""), (Path.home(), "~")):
            if Path(word).is_relative_to(base):
                return os.path.join(sign, Path(word).relative_to(base).as_posix())
    return SIGNED_IN.sub(MASK, word)


def _git_state() -> dict[str, Any] | None:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None

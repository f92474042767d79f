"""Resident memory of this process; Linux only."""

from pathlib import Path


def resident(field: str = "VmRSS") -> float:
    """Current (`VmRSS`) or peak (`VmHWM`) memory, MiB.

    `ru_maxrss` of a new process begins at the peak of the one that started it.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

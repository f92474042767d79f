"""Keeps freed memory in the process on Linux, so that large tensors are not faulted in again."""

import ctypes
import platform

# Parameters of mallopt in glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets glibc reuse the memory of large tensors instead of returning it to the kernel.

    By default glibc maps each tensor above a few megabytes and unmaps it when it is freed; a
    convolutional network on a CPU then spends up to half of its time on page faults. The setting
    applies to the whole process, whose size no longer shrinks. Only for computation on a CPU.

    Returns: whether the settings were applied; False if the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(TRIM_THRESHOLD, 2**31 - 1) and mallopt(MMAP_MAX, 0))

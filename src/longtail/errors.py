"""Errors that the package raises on purpose."""


class InputError(ValueError):
    """An invalid value, file or option; the message says which and why.

    The commands print it as one line. Any other exception is a bug and keeps its traceback.
    """


class NotFiniteError(FloatingPointError):
    """The loss or a weight is NaN or infinite in training."""


class LostProcessError(RuntimeError):
    """Another process of a run or command has ended; raised on those that waited for it."""

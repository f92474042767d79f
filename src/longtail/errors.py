"""Errors that the package raises on purpose."""


class InputError(ValueError):
    """A value, file or option that the package cannot work with; the message says what and why.

    The commands print it as one line. Any other exception is a fault and keeps its traceback.
    """


class NotFiniteError(FloatingPointError):
    """The loss or a weight of a training is NaN or infinite."""


class LostProcessError(RuntimeError):
    """Another process of a run has ended; raised on the processes that waited for it."""

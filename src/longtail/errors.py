"""The error of input that the package refuses."""


class InputError(ValueError):
    """A value, file or option that the package cannot work with; the message says what and why.

    The commands print it as one line. Any other exception is a fault and keeps its traceback.
    """

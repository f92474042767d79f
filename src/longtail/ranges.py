"""Numbers that must lie in a range."""

from math import inf

from longtail.errors import InputError

# Beyond these, a setting is more likely a typo than intended.
MAX_WIDTH = 8_192  # of a layer or an embedding
MAX_QUEUE = 2**20  # keys
MAX_SIDE = 8_192  # pixels of an image
MAX_WORKERS = 1024
MAX_COUNT = 1_000_000  # epochs, images of a batch, ...
LARGEST = 2**63  # whole numbers that are no longer those of tensors


def check_range(
    what: str,
    value: float,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """Raises an error for a number that is out of range, NaN or infinite.

    Args:
        what: name in the message, such as `tau of LogitAdjustedLoss`.
        value: the number.
        least: inclusive lower bound.
        above: exclusive lower bound.
        most: inclusive upper bound.
        below: exclusive upper bound.
        whole: whether it must be a whole number.

    Raises:
        InputError: when it is out of range, or not a number.

    Examples:
        >>> check_range("momentum", 2.0, least=0, below=1)
        Traceback (most recent call last):
        ...
        longtail.errors.InputError: momentum must be in [0, 1), got 2.0
    """
    number = value if isinstance(value, int | float) else _as_number(what, value)
    finite = -inf < number < inf  # which NaN is not
    if whole and finite and number % 1:
        raise InputError(f"{what} must be a whole number, got {value}")
    small = not isinstance(number, int) or -LARGEST <= number < LARGEST
    inside = (
        finite
        and small
        and (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    )
    if not inside:
        rule = _rule(least, above, most, below)
        high = most is not None or below is not None
        more = "finite" if not finite else "" if small or high else "below 2^63"
        rules = " and ".join(filter(None, (rule, more)))
        raise InputError(f"{what} must be {rules}, got {value}")


def _as_number(what: str, value: object) -> float:
    """A NumPy scalar, or the number in a tensor with one element."""
    try:
        if not isinstance(value, str | bytes):
            return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        pass
    raise InputError(f"{what} must be a number, got {value!r}")


def _rule(least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    """The bounds as text."""
    low = f">= {least}" if least is not None else f"> {above}" if above is not None else ""
    high = f"<= {most}" if most is not None else f"< {below}" if below is not None else ""
    if not (low and high):
        return low or high
    begin, end = "(" if least is None else "[", ")" if most is None else "]"
    return f"in {begin}{low.split()[1]}, {high.split()[1]}{end}"

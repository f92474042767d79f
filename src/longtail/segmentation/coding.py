"""Which mask values mean which classes, decided by the values that occur."""

from collections.abc import Sequence

from longtail.errors import InputError
from longtail.segmentation.layouts import Layout, PixelDataConfig
from longtail.segmentation.masks import IGNORED, IndexCoding, index_coding

SHOWN = 12  # values that a message lists
Settled = tuple[IndexCoding, tuple[str, ...]]


def settle_coding(layout: Layout, config: PixelDataConfig, seen: Sequence[int]) -> Settled:
    """Decides the meaning of the values in index masks, and the class names.

    The values of the classes are those of `config.values`, or 0 to C - 1, or 1 to C if no mask has
    a 0. Anything else could be read in more than one way, and is rejected.

    Args:
        layout: the layout, whose class names may be unknown.
        config: values that are classes or ignored.
        seen: values that occur in any mask, ascending.

    Raises:
        InputError: when the values do not determine the classes, or a single class is left.
    """
    names, ignored = layout.class_names, tuple(config.ignored or ())
    if config.values:
        if names and len(names) != len(config.values):
            raise InputError(
                f"data.values must have a value for each of the {len(names)} classes that are "
                f"named, got {len(config.values)}"
            )
        coding = IndexCoding(tuple(config.values), ignored)
    else:
        values = [value for value in seen if value not in {IGNORED, *ignored}]
        if layout.zero_is_ignored and len(names) in values:
            values, ignored = [v for v in values if v], (*ignored, 0)
        coding = _consecutive(layout, values, seen, ignored)
    return coding, names or tuple(f"class {value}" for value in coding.values)


def _consecutive(
    layout: Layout, values: Sequence[int], seen: Sequence[int], ignored: tuple[int, ...]
) -> IndexCoding:
    """Consecutive classes from 0 or 1."""
    count = len(layout.class_names)
    found = f"the masks of {layout.root} have the values {_listed(seen)}"
    if count and count in values and 0 in values:
        raise InputError(
            f"{found}, but {count} classes are named: name the class of value 0 as well, or ignore "
            f"it with --data.ignored 0, or list the values of the classes with --data.values"
        )
    if count:
        if len(values) == count and values[-1] > count:
            return IndexCoding(tuple(values), ignored)
        return index_coding(count, int(count in values), ignored)
    if len(values) < 2:
        if IGNORED in seen and values and IGNORED not in ignored:
            raise InputError(
                f"{found}: is {IGNORED} a class? Then set --data.values {values[0]} {IGNORED}; "
                "now it is ignored, and all other pixels are of one class"
            )
        raise InputError(f"{found}: they must be of two or more classes")
    if list(values) != list(range(values[0], values[0] + len(values))) or values[0] > 1:
        raise InputError(
            f"{found}, which are not 0 to C - 1 or 1 to C for C classes. List the values of the "
            f"classes, as in --data.values {' '.join(map(str, seen[:SHOWN]))}; {IGNORED} is "
            "ignored unless it is listed, other values with --data.ignored"
        )
    return index_coding(len(values), values[0], ignored)


def _listed(values: Sequence[int]) -> str:
    """Values as text; as a range if they are consecutive."""
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]} to {values[-1]}"
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    if len(values) == 2:
        return f"{values[0]} and {values[1]}"
    return ", ".join(map(str, values[:SHOWN])) + more

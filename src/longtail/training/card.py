"""The card of a model: what is needed to rebuild it, checked when it is read from a file."""

import math
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from longtail.errors import InputError
from longtail.files import parse_json
from longtail.prior import ClassPrior
from longtail.shift import expressed_prior

KEY = "longtail"  # of the card in the metadata of a model file
LARGEST_SIZE, LARGEST_MARGIN = 10_000, 10
IMAGE_CARD = ("backbone", "head", "image_size", "margin")  # of a classifier of images
CLASSES = ("class_names", "class_counts", "expresses")


def read_card(path: Path, needed: Collection[str]) -> dict[str, Any]:
    """The card in the metadata of a model file.

    Args:
        path: the file, which may come from anyone: nothing that its card names is imported, and
            no path in it is opened.
        needed: entries that the card must have in addition to those about the classes.

    Raises:
        InputError: when the file is corrupt, or its card is not valid.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            card = parse_json((handle.metadata() or {})[KEY])
    except KeyError as error:
        raise InputError(f"{path} is not a valid model file: it has no card of longtail") from error
    except (OSError, SafetensorError, InputError) as error:
        raise InputError(f"{path} is not a valid model file: {error}") from error
    return check_card(card, path, needed)


def check_card(card: Any, path: Path, needed: Collection[str]) -> dict[str, Any]:
    """Returns the card if it is valid.

    Args:
        card: content of a file.
        path: the file.
        needed: as for `read_card`.

    Raises:
        InputError: names the file, and all entries that are missing or wrong.
    """
    if wrong := wrong_entries(card, (*needed, *CLASSES)):
        raise InputError(f"the card of {path} is not valid: {'; '.join(wrong)}")
    found: dict[str, Any] = card
    return found


def wrong_entries(card: Any, needed: Collection[str]) -> list[str]:
    """Describes the entries of a card that are missing, or have a wrong type or range.

    Args:
        card: content of a file.
        needed: entries that it must have.
    """
    if not isinstance(card, dict):
        return [f"it must hold names and values, got {_short(card)}"]
    wrong = [f"{name} is missing" for name in needed if card.get(name) is None]
    wrong += [
        f"{name} must be {rule}, got {_short(card[name])}"
        for name, (rule, fits) in RULES.items()
        if card.get(name) is not None and not fits(card[name])
    ]
    return wrong or _wrong_classes(card)


def _wrong_classes(card: dict[str, Any]) -> list[str]:
    """Describes disagreements between the entries that have one value per class."""
    names, counts = card["class_names"], card["class_counts"]
    if len(names) != len(counts):
        return [f"class_names has {len(names):,} classes, class_counts {len(counts):,}"]
    try:
        expressed_prior(card["expresses"], ClassPrior(counts))
    except InputError as error:
        return [str(error)]
    return []


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a number that fits a float, including NaN and infinity."""
    return isinstance(value, float) or (_is_whole(value) and abs(value) < sys.float_info.max)


def _is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 1000


def _listed(each: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(each, value))


def _named(each: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(each, value.values()))


PLAIN = str | int | float | None
NAME = ("a name", _is_name)
RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("backbone", "decoder", "head", "method", "data", "name", "split"), NAME),
    "class_names": (
        "a list of two names or more",
        lambda value: _listed(lambda name: isinstance(name, str))(value) and len(value) > 1,
    ),
    "class_counts": (
        "a list of numbers above 0",
        _listed(lambda value: _is_finite(value) and 0 < value < 2**62),
    ),
    "expresses": (
        "'source', 'uniform' or a list of probabilities",
        lambda value: value in ("source", "uniform") or _listed(_is_finite)(value),
    ),
    "image_size": (
        f"a whole number of pixels from 1 to {LARGEST_SIZE:,}",
        lambda value: _is_whole(value) and 1 <= value <= LARGEST_SIZE,
    ),
    "margin": (
        f"a number from 1 to {LARGEST_MARGIN}",
        lambda value: _is_finite(value) and 1 <= value <= LARGEST_MARGIN,
    ),
    "data_settings": ("settings by name", _named(lambda value: isinstance(value, PLAIN))),
    "metrics": (
        "numbers by name",
        _named(lambda value: isinstance(value, str) or is_number(value)),
    ),
    "keys": (
        "two whole numbers above 0",
        lambda value: _listed(_is_whole)(value) and len(value) == 2 and min(value) > 0,
    ),
}


def check_classes(card: Mapping[str, Any], names: tuple[str, ...], role: str) -> None:
    """Rejects a trained model in a role, such as `teacher`, for data with other classes.

    Args:
        card: card of the model.
        names: class names of the data.
        role: the role and the model, for the message.

    Raises:
        InputError: when its classes are not `names`, in their order.
    """
    own = tuple(card["class_names"])
    if own != names:
        raise InputError(
            f"{role} must have the data's classes, {names[:5]} ..., it was trained on {own[:5]} ..."
        )

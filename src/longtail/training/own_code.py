"""The user's own code that settings name by its import path."""

from collections.abc import Iterator, Mapping
from typing import Any

from longtail.data.load import is_own_source
from longtail.models import is_own_backbone
from longtail.names import is_import_path
from longtail.training.config import STAGES


def named_in(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names in settings that may be import paths, with what each is for."""
    for what, key in (("data", "source"), ("method", "name"), ("backbone", "")):
        given = settings.get(what)
        name = given.get(key) if isinstance(given, Mapping) else given
        if isinstance(name, str):
            yield name, {"data": "source"}.get(what, what)
    for stage in STAGES:
        if isinstance(settings.get(stage), Mapping):
            yield from named_in(settings[stage])


def own_code_in(settings: Mapping[str, Any]) -> dict[str, str]:
    """Names in settings that would be imported, with what each is for."""
    return {name: what for name, what in named_in(settings) if _is_own_code(name, what)}


def _is_own_code(name: str, what: str) -> bool:
    """Whether a name would be imported: it has that form, and is not a file or timm model."""
    if what == "backbone":
        return is_own_backbone(name)
    return is_own_source(name) if what == "source" else is_import_path(name)

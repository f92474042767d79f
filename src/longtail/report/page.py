"""The page: one self-contained HTML file that compares runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from longtail.errors import InputError
from longtail.files import write_text
from longtail.report import svg
from longtail.report.content import content
from longtail.report.run import RunData
from longtail.text import printable

AnyRun = TypeVar("AnyRun", bound=RunData)
FOLDER = Path(__file__).parent
MOST_RUNS = len(svg.MARKERS)


def write_report(runs: Sequence[RunData], path: str | Path, *, pictures: bool = True) -> Path:
    """Writes one page that compares runs, without scripts, other files or network access.

    The same runs give the same file, byte for byte.

    Args:
        runs: 1 to 6; those that were evaluated must have the same classes. The others are compared
            with the first.
        path: path of the HTML file, which is written atomically.
        pictures: whether thumbnails of images go into the page, at most 2 MB of them.

    Returns: the path.
    Raises:
        ValueError: when there is no run, there are too many, or their classes differ.
    """
    return write_page(FOLDER / "page.html", content(shown_together(runs), pictures), path)


def write_page(template: Path, values: Mapping[str, Any], path: str | Path) -> Path:
    """Writes the page of a template, which may extend those of this folder.

    Names and paths in the values are escaped, including control characters.

    Returns: the path.
    """
    pages = Environment(
        loader=FileSystemLoader([template.parent, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    write_text(path, pages.get_template(template.name).render(style=style, **values) + "\n")
    return Path(path)


def _visible(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def shown_together(runs: Sequence[AnyRun]) -> list[AnyRun]:
    """The runs of one page; runs with the same name are numbered.

    Raises:
        ValueError: when there is no run, there are too many, or their classes differ.
    """
    if not 1 <= len(runs) <= MOST_RUNS:
        raise InputError(f"runs of a report must be 1 to {MOST_RUNS}, got {len(runs)}")
    _check_classes(runs)
    seen: Counter[str] = Counter()
    unique = []
    for run in runs:
        seen[run.name] += 1
        again = seen[run.name]
        unique.append(replace(run, name=f"{run.name} ({again})") if again > 1 else run)
    return unique


def _check_classes(runs: Sequence[RunData]) -> None:
    known = [run for run in runs if run.prior]
    for run in known[1:]:
        if list(run.class_names) != list(known[0].class_names):
            raise InputError(
                "runs of one report must have the same classes, got "
                f"{_classes(known[0])} and {_classes(run)}"
            )


def _classes(run: RunData) -> str:
    shown = ", ".join(run.class_names[:3])
    return f"{len(run.class_names)} of {run.name!r} ({shown}, ...)"

"""Tables in the pages of the docs, written from result files."""

from pathlib import Path

from longtail.files import write_text


def write_between(page: Path, name: str, lines: list[str]) -> None:
    """Writes lines between the markers `<!-- NAME: begin -->` and `<!-- NAME: end -->` of a page.

    Raises:
        ValueError: when the page has no such markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise ValueError(f"{page} has no markers {begin} and {end}")
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    write_text(page, "\n".join([head + begin, *lines, end + tail]))

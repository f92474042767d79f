"""Photographs in the page: most confident mistakes, confused classes, doubtful labels."""

import base64
import io
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from longtail.data.images import open_image, to_rgb
from longtail.data.paths import file_of
from longtail.data.reading import has_copy
from longtail.metrics import suspected_label_errors
from longtail.report.confusion_picture import confused_pairs
from longtail.report.run import RunData

SIDE = 144  # longest side of a thumbnail in pixels
QUALITY = 70
BUDGET = 2_000_000  # bytes of all thumbnails of a page, as encoded in the page
MISTAKES, PAIRS, SUSPECTS = 12, 4, 12
OF_EACH = 3  # examples of each class of a confused pair


@dataclass
class Thumbnails:
    """Small JPEGs for one page, each image once, within `BUDGET` bytes.

    Attributes:
        shown: whether images are read at all.
        unreadable: files that are missing or cannot be read.
        left_out: files for which there was no room.
    """

    shown: bool = True
    unreadable: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)
    _sources: dict[str, str] = field(default_factory=dict)
    _used: int = 0

    def source(self, path: str) -> str | None:
        """The `src` of an image; None if it cannot be shown."""
        if not self.shown or path in self.unreadable or path in self.left_out:
            return None
        if path not in self._sources:
            content = _jpeg(path)
            if content is None:
                self.unreadable.add(path)
                return None
            self._sources[path] = "data:image/jpeg;base64," + base64.b64encode(content).decode()
        source = self._sources[path]
        if self._used + len(source) > BUDGET:
            self.left_out.add(path)
            return None
        self._used += len(source)
        return source

    def first(self, paths: Iterable[str], most: int) -> list[dict[str, Any]]:
        """The first `most` images that can be shown, each with its path and source."""
        found: list[dict[str, Any]] = []
        for path in paths:
            if len(found) == most:
                break
            if source := self.source(path):
                found.append({"path": path, "source": source})
        return found


def photographs(runs: Sequence[RunData], thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Mistakes, confused pairs and suspects of each evaluated run whose images have paths."""
    return [
        {
            "series": series,
            "mistakes": surest_mistakes(run, thumbnails),
            "pairs": confused_examples(run, thumbnails),
            "suspects": suspects(run, thumbnails),
        }
        for series, run in enumerate(runs)
        if run.scores and run.paths
    ]


def surest_mistakes(run: RunData, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """The wrong predictions with the highest confidence whose images can be shown."""
    assert run.scores is not None
    wrong = (~run.scores.correct).nonzero().flatten()
    order = wrong[run.scores.confidence[wrong].argsort(descending=True, stable=True)]
    cards = (_card(run, position, thumbnails) for position in order[: 4 * MISTAKES].tolist())
    return list(islice((card for card in cards if card["source"]), MISTAKES))


def confused_examples(run: RunData, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """The most confused pairs, with mistaken test images between training images of both."""
    assert run.scores is not None
    found = []
    for pair in confused_pairs(run.scores, run.class_names, PAIRS):
        true, predicted = map(run.class_names.index, (pair.true, pair.predicted))
        chosen = (run.scores.labels == true) & (run.scores.predicted == predicted)
        at = chosen.nonzero().flatten()
        at = at[run.scores.confidence[at].argsort(descending=True, stable=True)]
        groups = [
            (f"training images of {pair.true}", run.examples.get(pair.true, ())),
            (f"{pair.true} mistaken for {pair.predicted}", [run.paths[i] for i in at.tolist()]),
            (f"training images of {pair.predicted}", run.examples.get(pair.predicted, ())),
        ]
        shown = [(title, thumbnails.first(paths, OF_EACH)) for title, paths in groups]
        if any(images for _, images in shown):
            found.append({"pair": pair, "groups": [group for group in shown if group[1]]})
    return found


def suspects(run: RunData, thumbnails: Thumbnails) -> dict[str, Any]:
    """Test images whose label may be wrong, listed by path if none can be shown."""
    if run.uniform is None or not thumbnails.shown:
        return {"count": 0, "cards": []}
    found = suspected_label_errors(run.uniform)
    cards = []
    for position in found[:SUSPECTS].tolist():
        card = _card(run, position, thumbnails)
        card["predicted"] = run.class_names[int(run.uniform.predicted[position])]
        card["confidence"] = f"{100 * float(run.uniform.confidence[position]):.0f}"
        cards.append(card)
    return {"count": len(found), "cards": cards}


def _card(run: RunData, position: int, thumbnails: Thumbnails) -> dict[str, Any]:
    assert run.scores is not None
    return {
        "path": run.paths[position],
        "source": thumbnails.source(run.paths[position]),
        "true": run.class_names[int(run.scores.labels[position])],
        "predicted": run.class_names[int(run.scores.predicted[position])],
        "confidence": f"{100 * float(run.scores.confidence[position]):.0f}",
    }


def _jpeg(path: str) -> bytes | None:
    """A thumbnail; None for a file that is missing, not regular, or unreadable."""
    if not (has_copy(path) or os.path.isfile(file_of(path))):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an image that is large or oddly stored
            with open_image(path) as image:
                rgb = to_rgb(image, min(image.size) / SIDE)
            rgb.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        rgb.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        return buffer.getvalue()
    except Exception:  # broken files make Pillow raise nearly anything
        return None

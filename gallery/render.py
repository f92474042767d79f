"""Runs the examples of this folder and makes a page of each, with its output, figures and notebook.

An example is a script of cells: `# %% [markdown]` begins a text, `# %%` begins code. It is a hook of
mkdocs (`make docs` runs every example, and an error in one stops the build), and a program:

    python gallery/render.py                   # runs all and prints the seconds of each
    python gallery/render.py drift table       # runs some
    python gallery/render.py --notebook drift  # writes gallery/drift.ipynb
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LEFT_OUT = {"render"}
INSTALL = """# In Colab, first upload the wheel that `make wheel` leaves in build/.
!pip install --quiet {wheel} matplotlib"""
Cell = tuple[str, str]  # kind, `markdown` or `code`, and text


@dataclass
class Page:
    """An example that was run.

    Attributes:
        name: name of the script.
        title: first heading.
        markdown: text of the page.
        pictures: name and content of each PNG file.
        seconds: processor time of its code.
    """

    name: str
    title: str
    markdown: str
    seconds: float
    pictures: dict[str, bytes] = field(default_factory=dict)


def scripts() -> list[Path]:
    """The examples, in the order of their `# order: N` line."""

    def order(path: Path) -> int:
        found = re.match(r"# order: (\d+)\n", path.read_text(encoding="utf-8"))
        if not found:
            raise ValueError(f"{path} must begin with `# order: N`")
        return int(found[1])

    return sorted(
        (p for p in FOLDER.glob("*.py") if p.stem not in LEFT_OUT), key=order
    )


def cells(text: str) -> list[Cell]:
    """The cells of a script.

    Examples:
        >>> cells("# order: 1\\n# %% [markdown]\\n# # Title\\n# %%\\nx = 1\\n")
        [('markdown', '# Title'), ('code', 'x = 1')]
    """
    found = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            found.append(
                ("markdown", re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE))
            )
        else:
            found.append(("code", body.strip()))
    return found


def run(script: Path) -> Page:
    """Runs an example in an empty folder of its own.

    Raises:
        RuntimeError: when a cell fails; the message has the traceback.
    """
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    parts, pictures, seconds = [], {}, 0.0
    names: dict[str, Any] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for kind, text in cells(script.read_text(encoding="utf-8")):
            if kind == "markdown":
                parts.append(text)
                continue
            parts.append(f"```python\n{text}\n```")
            begin = time.process_time()
            printed = _run_cell(text, names, script.name)
            seconds += time.process_time() - begin
            if printed.strip():
                parts.append(f"```text\n{printed.rstrip()}\n```")
            for number in pyplot.get_fignums():
                name = f"{script.stem}-{len(pictures) + 1}.png"
                file = io.BytesIO()
                pyplot.figure(number).savefig(file, dpi=110, bbox_inches="tight")
                pictures[name] = file.getvalue()
                parts.append(f"![{_title(parts[0])}]({name})")
            pyplot.close("all")
    parts.append(
        f"This page ran in {seconds:.1f} seconds of one core: `gallery/{script.name}`, "
        f"also [as a notebook]({script.stem}.ipynb)."
    )
    return Page(
        script.stem, _title(parts[0]), "\n\n".join(parts) + "\n", seconds, pictures
    )


def _run_cell(text: str, names: dict[str, Any], where: str) -> str:
    """Runs code and returns what it printed."""
    printed = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            exec(compile(text, where, "exec"), names)
    except Exception as error:
        raise RuntimeError(
            f"{where} failed:\n{text}\n{traceback.format_exc()}"
        ) from error
    return printed.getvalue()


def _title(text: str) -> str:
    return text.splitlines()[0].removeprefix("# ")


def notebook(script: Path) -> str:
    """The example as a Jupyter notebook without output, which installs what it needs."""

    def cell(kind: str, text: str, number: int) -> dict[str, Any]:
        more = {"execution_count": None, "outputs": []} if kind == "code" else {}
        lines = text.splitlines(keepends=True)
        return {
            "cell_type": kind,
            "id": f"cell-{number}",
            "metadata": {},
            "source": lines,
        } | more

    example = script.read_text(encoding="utf-8")
    wheel = "longtail-*.whl"
    if re.search(r"longtail\.integrations\.(huggingface|lightning)", example):
        wheel = f'"$(ls {wheel})[integrations]"'
    parts = cells(example)
    parts.insert(1, ("code", INSTALL.format(wheel=wheel)))
    content = {
        "cells": [
            cell(kind, text, number) for number, (kind, text) in enumerate(parts)
        ],
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def index(pages: list[Page]) -> str:
    """The page of all examples: title and figure of each."""
    parts = [
        "# Gallery",
        "Examples that run in seconds on a CPU; every build of these pages runs them.",
    ]
    parts.append('<div class="grid cards" markdown>')
    lines = []
    for page in pages:
        picture = next(iter(page.pictures), None)
        image = (
            f"[![{page.title}]({picture})]({page.name}.md)\n\n    "
            if picture
            else ""
        )
        lines.append(f"-   {image}[{page.title}]({page.name}.md)\n")
    parts += ["\n".join(lines), "</div>"]
    return "\n\n".join(parts) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to those of mkdocs; named by it."""
    from mkdocs.structure.files import File

    pages = [run(script) for script in scripts()]
    files.append(File.generated(config, "gallery/index.md", content=index(pages)))
    for page in pages:
        files.append(
            File.generated(config, f"gallery/{page.name}.md", content=page.markdown)
        )
        text = notebook(FOLDER / f"{page.name}.py")
        files.append(
            File.generated(config, f"gallery/{page.name}.ipynb", content=text)
        )
        for name, content in page.pictures.items():
            files.append(File.generated(config, f"gallery/{name}", content=content))
    return files


def main(words: list[str]) -> None:
    """Runs some examples, or writes their notebooks."""
    chosen = [
        FOLDER / f"{word}.py" for word in words if not word.startswith("-")
    ] or scripts()
    if "--notebook" in words:
        for script in chosen:
            script.with_suffix(".ipynb").write_text(
                notebook(script), encoding="utf-8"
            )
        return
    out = Path("build/gallery")
    out.mkdir(parents=True, exist_ok=True)
    for script in chosen:
        page = run(script)
        print(f"{page.seconds:6.1f} s  {page.name}", flush=True)
        (out / f"{page.name}.md").write_text(page.markdown, encoding="utf-8")
        for name, content in page.pictures.items():
            (out / name).write_bytes(content)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])

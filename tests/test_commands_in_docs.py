"""Commands and options in the pages are those that longtail has, with values that they take."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from longtail import api
from longtail.cli import _arguments
from longtail.errors import InputError
from longtail.listing import list_names
from longtail.settings import make_grammar

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = re.compile(r"^```(?:console)?\n(.*?)^```$|^((?: {4}.*\n)+)", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(?: {4}|\$ |srun .* )?(longtail .*)$", re.MULTILINE)
INLINE = re.compile(r"`(longtail [^`]+)`")
OPTION = re.compile(r"`--([a-z][\w.-]*)")
OF_OTHERS = {"max-restarts"}  # of torchrun
# What the pages name, for their commands to be read.
FILES = {
    "RUN/config.yaml": "data: {source: digits-lt}\nmethod: {name: ce}\n",
    "theirs.yaml": "data: digits-lt\nmethod: ce\n",
    "my_package.py": "from longtail.losses import CrossEntropyLoss as MyLoss\n",
}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8").replace("\\\n", " ")


def lines() -> Iterator[str]:
    """Commands on lines of their own."""
    for page in PAGES:
        for block in BLOCKS.finditer(text_of(page)):
            yield from LINE.findall(block[0])


def mentions() -> Iterator[str]:
    """Commands in sentences and tables, which may lack what a command needs."""
    for page in PAGES:
        yield from (" ".join(words.split()) for words in INLINE.findall(text_of(page)))


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_package", None)


def read(command: str) -> None:
    """Parses a command as the command line does, and does not run it."""
    words = shlex.split(command.replace("NAME", "gml"), comments=True)[1:]
    if words == ["--version"]:
        return
    name = next(n for n in (" ".join(words[:2]), words[0]) if n in api.COMMANDS)
    _arguments(name, getattr(api, api.COMMANDS[name]), words[len(name.split()) :])


def refusal(command: str) -> str:
    """Why a command is refused; nothing if it is not."""
    try:
        read(command)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.usefixtures("_folder")
def test_commands_are_valid() -> None:
    commands = {*lines()}
    assert len(commands) > 40
    for command in sorted(commands):
        read(command)


@pytest.mark.usefixtures("_folder")
def test_commands_in_sentences_are_valid_or_lack_a_value() -> None:
    commands = {*mentions()}
    assert len(commands) > 40
    for command in sorted(commands):
        assert re.match(r"$|longtail .* needs |--\S+ must have a value", refusal(command)), command


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("longtail train DATA --epoch 3", InputError),
        ("longtail train DATA --epochs many", InputError),
        ("longtail fit DATA", StopIteration),
    ],
)
def test_what_is_wrong_is_found(command: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(command)


def test_options_in_sentences_exist() -> None:
    known = set(OF_OTHERS)
    for task in ("classification", "segmentation"):
        for method in list_names("methods", task):
            given = {"task": task, "method": {"name": method}}
            known |= {*make_grammar("train", api.train, given).types}
    for name in api.COMMANDS.values():
        known |= {*make_grammar(name, getattr(api, name), {}).types}
    known = {name.replace("_", "-") for name in known} | {"method", "config", "trust"}
    stages = {name for name in known if name.endswith("-stage")}  # they take any setting
    assert len(stages) == 2
    for page in PAGES:
        for option in OPTION.findall(text_of(page)):
            assert option in known or option.partition(".")[0] in stages, (page, option)

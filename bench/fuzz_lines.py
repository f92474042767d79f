"""Possibly nonsensical command lines, for `fuzz.py`."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from longtail.cli import main as command


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


SOURCES = words_of(
    "digits-lt digits-lt digits-lt pets pets.csv bad.csv masks shards cifar10-lt camvid nothing "
    "run ../pets digit-lt x.y.Z \u00e9"
)
FILES = words_of("run run run run pets pets/cat/0.png pets.csv nothing prior.csv")
VALUES = words_of(
    "0 1 2 -1 0.5 1e400 nan inf true auto none x [] {} [1,2] null 99999999999999999999 uniform "
    "source -- = \x00"
)
ODD = ("", " ", "{a: 1}", "a\nb")
TRAIN = words_of(
    "epochs batch-size lr momentum milestones views mix sampling seed backbone schedule warmup "
    "precision device devices tune ema start data.imbalance data.image-size data.seed "
    "data.val-fraction data.label-column method.loss.tau method.head method.width teacher "
    "teacher-stage.epochs task"
)
OTHER = words_of(
    "out target-prior split window flip top to fit kind json task megabytes backbone precision "
    "no-pictures seeds jobs imbalance root data.root data.depth data.values data.check nonsense "
    "help config"
)
COMMANDS = (
    *("evaluate", "protocol", "predict", "embed", "export", "report", "reproduce", "list"),
    *("data check", "data check", "data shard", "data", "advise", "nonsense", "", "--version"),
)
METHODS = words_of("ce logit_adjust gml lade crt nonsense x.Y auto")


def options(names: Sequence[str], most: int) -> st.SearchStrategy[list[str]]:
    """Words of some options, whose values mostly make no sense."""
    name = st.sampled_from(names)
    value = st.one_of(st.sampled_from([*VALUES, *ODD]), st.sampled_from(FILES), st.text(max_size=6))
    one = st.one_of(
        st.tuples(name, value).map(lambda nv: [f"--{nv[0]}", nv[1]]),
        st.tuples(name, value).map(lambda nv: [f"--{nv[0]}={nv[1]}"]),
        name.map(lambda n: [f"--{n}"]),
        value.map(lambda v: [v]),
    )
    return st.lists(one, max_size=most).map(lambda found: [w for words in found for w in words])


@st.composite
def lines(draw: Any) -> list[str]:
    """A command line; training takes one epoch, on the digits or on six images."""
    if draw(st.integers(0, 2)) == 0:
        given = draw(options(TRAIN, 2))
        words = ["train", draw(st.sampled_from([*SOURCES, *ODD])), *given, "--out", "new"]
        words += ["--method", draw(st.sampled_from(METHODS))]
        size = {"data.image-size": "8", "backbone": "smallnet", "pretrained": "false"}
        for name, value in {"epochs": "1", **size}.items():
            if not any(word.startswith(f"--{name}") for word in given):
                words += [f"--{name}", value]
        if any(word.startswith("--epochs") for word in given):
            words += ["--batch-size", "-5"]  # any number of epochs may be valid
        return words
    name = draw(st.sampled_from(COMMANDS))
    loose = draw(st.lists(st.sampled_from([*SOURCES, *FILES, *ODD]), max_size=2))
    words = [*name.split(), *loose, *draw(options(OTHER, 2))]
    heavy = {"reproduce": "--seeds=0", "advise": "--seed=x", "embed": "--precision=x"}
    return [*words, *([heavy[name]] if name in heavy else [])]


def make_files() -> None:
    """Data of several kinds and a finished run, in the current folder."""
    for number in range(6):
        path = Path("pets") / ("cat" if number % 2 else "dog") / f"{number}.png"
        for place in (path, Path("masks/images/train") / path.name):
            place.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.RandomState(number).randint(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(place)
        mask = Path("masks/masks/train") / path.name
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 2 * 255).save(mask)
    rows = [f"pets/{'cat' if n % 2 else 'dog'}/{n}.png,{n % 2}" for n in range(6)]
    Path("pets.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    Path("bad.csv").write_text('path;label\n"a,b\n')
    Path("prior.csv").write_text("0.5\n0.5\n")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        words = ["digits-lt", "--method", "ce", "--epochs", "1", "--out", "run"]
        assert command(["train", *words]) == 0
        assert command(["data", "shard", "pets", "--out", "shards"]) == 0

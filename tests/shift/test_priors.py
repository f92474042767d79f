"""Priors from words and files."""

from pathlib import Path

import pytest
import torch

from longtail.prior import ClassPrior
from longtail.shift import read_prior, resolve_prior


def test_words() -> None:
    source = ClassPrior([3, 1])
    assert resolve_prior("uniform", source, 2).tolist() == [0.5, 0.5]
    assert resolve_prior("source", source, 2).tolist() == [0.75, 0.25]
    assert resolve_prior(source, None, 2).tolist() == [0.75, 0.25]
    assert resolve_prior([0.1, 0.9], None, 2).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "# class prior of May\n0.2\n\n0.3\n0.5\n"),
        ("p.csv", "class,probability\na,0.2\nb,0.3\nc,0.5\n"),
        ("p.csv", "c,0.5\na,0.2\nb,0.3\n"),
        ("p.csv", "probability\n0.2\n0.3\n0.5\n"),
        ("p.csv", '"a",2e-1\n"b", 0.3\n"c",.5\n'),
        ("p.csv", "a,.2\n,\n \nb,.3\nc,.5\n"),
        ("p.json", "[0.2, 0.3, 0.5]"),
        ("p.JSON", "[0.2, 0.3, 0.5]"),
        ("p.json", '{"c": 0.5, "a": 0.2, "b": 0.3}'),
    ],
)
def test_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert resolve_prior(tmp_path / name, None, 3, ["a", "b", "c"]).tolist() == [0.2, 0.3, 0.5]


def test_names_are_in_file_order_without_class_names(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,0.25\ny,0.75\n")
    assert read_prior(tmp_path / "p.csv") == [0.25, 0.75]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "0.2\nhalf\n0.3\n", r"p.txt:2: expected .* got 'half'"),
        ("p.csv", "a,b,0.2\n", r"p.csv:1: expected one or two columns, got 3"),
        ("p.csv", "a,0.5\nz,0.5\n", r"p.csv:2: class 'z' is not one of the 2 class names"),
        ("p.csv", "a,0.5\na,0.5\n", r"p.csv:2: class 'a' is listed twice"),
        ("p.csv", "0.5\nb,0.5\n", r"p.csv:1: .*every line has a name or none"),
        ("p.csv", "a,1\n", r"p.csv: no probability for 1 classes, first 'b'"),
        ("p.txt", "0.5\n0.4\n", r"prior in .*p.txt must sum to 1 within 1e-06, got 0.9"),
        ("p.txt", "0.5\n0.4\n0.1\n", r"prior in .*p.txt must have 2 classes, got 3"),
        ("p.txt", "1.5\n-0.5\n", r"prior in .*p.txt must hold .* got -0.5 for class 1"),
        ("p.txt", "", r"p.txt: no probability for 2 classes, first 'a'"),
        ("p.txt", "0.5x\n0.5\n0.5\n", r"p.txt:1: expected .* got '0.5x'"),
        ("p.csv", "a,50%\nb,0.5\n", r"p.csv:1: expected .* got 'a,50%'"),
        ("p.csv", "# May\n\na,half\nb,0.5\n", r"p.csv:3: expected .* got 'a,half'"),
        ("p.csv", "class,prior\na,l.0\nb,0\n", r"p.csv:2: expected .* got 'a,l.0'"),
        ("p.csv", ",0.5\nb,0.5\n", r"p.csv:1: class '' is not one of the 2 class names"),
        ("p.csv", '"a,0.5\nb,0.5\n', r"p.csv:2: expected .* got 'a,0.5"),
        ("p.json", "[0.5, ", r"p.json: not readable as JSON"),
        ("p.json", '{"a": 0.5, "a": 0.4, "b": 0.5}', r"entry 1: class 'a' is listed twice"),
        ("p.json", '[0.5, "x"]', r"p.json: entry 1 must be a number, got 'x'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        resolve_prior(tmp_path / name, None, 2, ["a", "b"])


@pytest.mark.parametrize(
    "text",
    [
        "# of May, 2024\n#1,0.2\n cat,0.3\ncat,0.5\n",
        'class,p\n"#1",0.2\n" cat",0.3\n"cat" , 0.5\n',
        "cat,0.5\n cat,0.3\n #1 ,0.2\n",
    ],
)
def test_names_with_blanks_and_number_signs(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    names = ["#1", " cat", "cat"]
    assert read_prior(tmp_path / "p.csv", names) == [0.2, 0.3, 0.5]


def test_quotes_are_those_of_csv(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('"a, ""b""",0.2\n"two\n#lines",0.3\n"p",0.5\n')
    assert read_prior(tmp_path / "p.csv", ['a, "b"', "two\n#lines", "p"]) == [0.2, 0.3, 0.5]


def test_unknown_word_and_missing_counts() -> None:
    with pytest.raises(ValueError, match="must be 'uniform', 'source' or a file, got 'unifrom'"):
        resolve_prior("unifrom", None, 2)
    with pytest.raises(ValueError, match="needs the counts of the training set"):
        resolve_prior("source", None, 2)
    with pytest.raises(ValueError, match="must have 3 classes, got 2"):
        resolve_prior("source", ClassPrior([1, 1]), 3)


def test_a_prior_is_copied() -> None:
    source = ClassPrior([3, 1])
    resolve_prior("source", source, 2)[0] = 0.0
    resolve_prior(source.probabilities, None, 2)[0] = 0.0
    assert source.probabilities.tolist() == [0.75, 0.25]

import math

import pytest
import torch

from longtail import ClassPrior
from longtail.report import print_table
from longtail.report.shift_tables import METRICS, print_estimate, print_protocol
from longtail.report.tables import Column
from longtail.shift import estimate_prior, protocol_table

ACCURACY, ECE = Column("accuracy", "all"), Column("ece", "ECE", percent=False, higher=False)
SCORES = {metric.key: 0.5 for metric in METRICS}


def test_table_prints_percent_and_na(capsys):
    metrics = {"accuracy": 0.5234, "many": 1.0, "few": math.nan, "macro_f1": 0.1, "ece": 0.1484}
    print_table([{"run": "runs/[red]x[/red]", **metrics}])
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "all", "many", "medium", "few", "macro-F1", "ECE"]
    assert row.split() == ["runs/[red]x[/red]", "52.3", "100.0", "n/a", "n/a", "10.0", "0.148"]


def test_class_names_are_no_markup(capsys):
    prior = ClassPrior([2, 1])
    estimate = estimate_prior(None, None, torch.eye(2)[[0, 1] * 20], prior, calibration="none")
    print_estimate(estimate, prior, ["cat [tabby]", "[/dog]"])
    out = capsys.readouterr().out
    assert "cat [tabby]" in out
    assert "[/dog]" in out


def test_long_names_leave_the_metrics_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    print_table([{"run": "runs/" + "x" * 90, "accuracy": 0.5}])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 70
    assert sum(line.count("x") for line in lines) == 90
    assert "50.0" in lines[2]


def test_escape_sequences_are_spelt_out(capsys):
    print_table([{"run": "runs/\x1b[31mred\x07", "accuracy": 0.5}])
    prior = ClassPrior([2, 1])
    estimate = estimate_prior(None, None, torch.eye(2)[[0, 1] * 20], prior, calibration="none")
    print_estimate(estimate, prior, ["cat\x1b[2J", "dog\r"])
    out = capsys.readouterr().out
    assert "\x1b" not in out.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert r"\x1b[31mred\x07" in out
    assert r"cat\x1b[2J" in out


def test_table_says_how_many_classes_macro_f1_covers(capsys):
    rows = [
        {"run": name, "macro_f1": 0.5, "macro_f1_classes": n} for name, n in (("a", 9), ("b", 8))
    ]
    print_table(rows)
    assert capsys.readouterr().out.splitlines()[-1] == "macro-F1: mean over 8 or 9 classes"


def test_difference():
    assert ACCURACY.difference(0.5, 0.52) == "\N{MINUS SIGN}2.0"
    assert ECE.difference(0.5, 0.25) == "+0.250"
    assert ACCURACY.difference(math.nan, 0.5) == ""
    assert ECE.difference(math.inf, 0.5) == ""


@pytest.mark.parametrize(("images", "named"), [([3, 9], True), ([300, 900], False)])
def test_shifted_sets_of_a_handful_of_images_are_named(images, named, capsys):
    labels = torch.arange(2).repeat_interleave(torch.tensor(images))
    prior = ClassPrior([50, 10])
    logits = torch.nn.functional.one_hot(labels).double()
    columns = protocol_table(logits, labels, prior, [0.5, 0.5], lambda *_: SCORES)
    print_protocol([vars(column) for column in columns])
    out = capsys.readouterr().out
    assert ("The smallest set has 3 images" in out) == named
    assert out.split("\n\n")[1].split()[:2] == ["images", "F50"]

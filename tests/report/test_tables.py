import math

import pytest
import torch

from longtail import ClassPrior
from longtail.report import print_table
from longtail.report.shift_tables import print_estimate
from longtail.report.tables import Column
from longtail.shift import estimate_prior

ACCURACY, ECE = Column("accuracy", "all"), Column("ece", "ECE", percent=False, higher=False)


def test_table_prints_percent_and_na(capsys):
    figures = {"accuracy": 0.5234, "many": 1.0, "few": math.nan, "macro_f1": 0.1, "ece": 0.1484}
    print_table([{"run": "runs/[red]x[/red]", **figures}])
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


def test_long_names_leave_the_figures_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    print_table([{"run": "runs/" + "x" * 90, "accuracy": 0.5}])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 70
    assert sum(line.count("x") for line in lines) == 90
    assert "50.0" in lines[2]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        (ACCURACY, [0.5, 0.6], [False, True]),
        (ECE, [0.5, 0.6], [True, False]),
        (ACCURACY, [0.60004, 0.6, 0.5], [True, True, False]),
        (ACCURACY, [0.5, math.nan], [False, False]),
        (ACCURACY, [0.5, 0.5], [False, False]),
        (ACCURACY, [None], [False]),
        (ECE, [math.inf, 1.0], [False, True]),
    ],
)
def test_best(column, values, expected):
    assert column.best(values) == expected


def test_difference():
    assert ACCURACY.difference(0.5, 0.52) == "\N{MINUS SIGN}2.0"
    assert ECE.difference(0.5, 0.25) == "+0.250"
    assert ACCURACY.difference(math.nan, 0.5) == ""
    assert ECE.difference(math.inf, 0.5) == ""

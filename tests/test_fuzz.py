"""Calls and command lines with arguments that make no sense end in a result or an `InputError`."""

import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.chdir(tmp_path)
    import fuzz

    yield fuzz
    for name in ("fuzz", "fuzz_calls", "fuzz_lines"):
        sys.modules.pop(name, None)


def test_calls(fuzz: Any) -> None:
    found = fuzz.fuzz_calls_of(150, 1)
    assert found["faults"] == []
    assert found["returned"] > 10
    assert found["InputError"] > 10


def test_command_lines(fuzz: Any) -> None:
    found = fuzz.fuzz_lines_of(40, 1)
    assert found["faults"] == []
    assert found["status 2"] > 10


def test_a_fault_is_found(fuzz: Any) -> None:
    outcomes = fuzz.Outcomes()
    outcomes.call("int", int, ("x",))
    outcomes.call("int", int, ("1",))
    summary = outcomes.summary()
    (fault,) = summary["faults"]
    assert fault.startswith("int: ValueError at ?: invalid literal")
    assert summary["by_target"] == {"int": {"fault": 1, "returned": 1}}

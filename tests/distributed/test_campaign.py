"""Fifty kills, full disks and damaged files; minutes, so not part of `make test`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "faults.py"


@pytest.mark.slow
def test_fifty_kills_lose_no_more_than_an_interval(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    done = subprocess.run(
        [sys.executable, BENCH, "--kills", "50", "--disks", "9", "--damages", "20", "--out", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(out.read_text())["summary"]
    assert summary["kills"] == 50
    assert summary["runs_equal_to_unbroken"] == summary["runs"]
    assert summary["full_disks_named_and_equal"] == 9
    assert summary["faults"] == 0
    assert 0 < summary["most_steps_lost"] <= summary["interval_steps"]

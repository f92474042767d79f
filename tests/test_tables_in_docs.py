"""Tables of the docs are those of the result files, which show what was promised."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from longtail.probe.linear import chosen_penalty

ROOT = Path(__file__).parents[1]


def results(name: str) -> Any:
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bench() -> Any:
    """Loads a bench under a name of its own: `coverage` is also a package."""
    loaded = set(sys.modules)
    sys.path.insert(0, str(ROOT / "bench"))

    def load(name: str) -> Any:
        spec = spec_from_file_location(f"bench_{name}", ROOT / f"bench/{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.path.remove(str(ROOT / "bench"))
    for name in {"quantify", "pages"} - loaded:
        sys.modules.pop(name, None)


def check(page: str, name: str, lines: list[str]) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert "\n".join([f"<!-- {name}: begin -->", *lines, f"<!-- {name}: end -->"]) in text


def test_tables_of_estimated_priors(bench: Any) -> None:
    """If this fails after a new result: the commands in the docstrings of the three benches."""
    for name, lines in bench("shift").tables_of(results("shift")).items():
        check("shift.md", f"bench/shift.py {name}", lines)
    coverage, found = bench("coverage"), results("coverage")
    check("shift.md", "bench/coverage.py", coverage.lines(found["rows"]))
    spread = coverage.spread_lines(found["spread"]["rows"])
    check("shift.md", "bench/coverage.py spread", spread)
    quantify, found = bench("quantify"), results("quantify")
    check("shift.md", "bench/quantify.py errors", quantify.error_lines(found["rows"]))
    check(
        "shift.md",
        "bench/quantify.py shrinkage",
        quantify.shrinkage_lines(found["beside_no_shrinkage"]),
    )


def test_tables_of_classifiers(bench: Any) -> None:
    """If this fails after a new result: python bench/tables.py --docs docs/sklearn.md."""
    found = results("tables")
    check("sklearn.md", "bench/tables.py", bench("tables").page(found))
    assert found["choice_of_c"]["chosen"] == chosen_penalty("auto", 30)


def test_estimates_take_seconds() -> None:
    seconds = {
        (row["samples"], row["classes"]): row["seconds"] for row in results("shift")["speed"]
    }
    assert seconds[7_000, 1_000] < 20
    assert seconds[1_000_000, 10] < 30


def test_intervals_hold_wherever_they_are_called_reliable() -> None:
    for row in results("coverage")["rows"]:
        assert row["coverage_percent"] > 90
        assert row["reliable_percent"] == 100


def test_shrinkage_costs_nothing_beyond_noise() -> None:
    for row in results("quantify")["beside_no_shrinkage"]:
        for error in ("mae", "rae"):
            assert row[f"{error}_behind"] < 2 * row[f"{error}_se"]

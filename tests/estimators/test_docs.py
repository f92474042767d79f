"""The guide's examples run."""

import doctest
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs/sklearn.md"


def test_examples_of_the_guide() -> None:
    failed, tried = doctest.testfile(str(GUIDE), module_relative=False)
    assert tried > 20
    assert failed == 0

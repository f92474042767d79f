"""What the scripts beside this file find."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from longtail.files import write_text

collect_ignore = ["commands.py", "forks.py", "group.py"]  # scripts, which the tests run


@pytest.fixture(scope="session")
def results_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs a script by its name, once for all workers of xdist; gives the folder it wrote to."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def results(name: str) -> Path:
        folder, script = base / name, Path(__file__).with_name(f"{name}.py")
        said = folder / "said"
        try:
            folder.mkdir()
        except FileExistsError:
            while not said.exists():  # another worker runs it
                time.sleep(0.2)
        else:
            done = subprocess.run(
                [sys.executable, script, folder], capture_output=True, text=True, check=False
            )
            write_text(said, done.stderr if done.returncode else "")
        assert not said.read_text(), said.read_text()
        return folder

    return results

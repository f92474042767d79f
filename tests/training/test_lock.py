"""One run, one writer."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from longtail.errors import InputError
from longtail.training.lock import locked, locked_folder

HOLD = """
import sys
from pathlib import Path
from longtail.training.lock import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[bytes]:
    """A process that has the lock of a run folder."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_another_process_is_named_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holder(folder) as process:
        with (
            pytest.raises(InputError, match=rf"run is in use by process {process.pid} on .* since"),
            locked_folder(folder),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / ".lock").exists()  # what it left
    with locked_folder(folder):
        assert str(os.getpid()) in (folder / ".lock").read_text()
    assert list(folder.iterdir()) == []


def test_waiting_for_the_process_that_has_it(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        assert process.stdin is not None
        threading.Timer(0.2, process.stdin.close).start()
        with locked(tmp_path / ".lock", "run", wait=True):
            assert process.wait() == 0


def test_a_thread_enters_again_and_another_does_not(tmp_path: Path) -> None:
    said = []

    def other() -> None:
        try:
            with locked_folder(tmp_path):
                pass
        except InputError as error:
            said.append(str(error))

    with locked_folder(tmp_path):
        with locked_folder(tmp_path):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert said == [f"{tmp_path} is in use by another thread of this process"]
    other()
    assert len(said) == 1


def test_a_folder_made_for_a_refused_run_is_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("there", "runs/new"):
        with pytest.raises(InputError, match="refused"), locked_folder(tmp_path / name):
            raise InputError("refused")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"out must be a folder, .*file is a file"),
        locked_folder(tmp_path / "file"),
    ):
        pass


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", unsupported)
    with pytest.warns(UserWarning, match="cannot be locked"), locked_folder(tmp_path):
        pass

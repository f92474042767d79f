import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longtail.training import Checkpoints

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from longtail.training import Checkpoints

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save({"epoch": 1, "step": 0})
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    checkpoints.save({"epoch": 2, "step": 0, "weights": torch.zeros(100_000)})
except OSError as error:
    print(error)
"""


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load_last() is None
    for epoch, step in ((1, 0), (10, 0), (10, 7)):
        weights = torch.full((2,), float(epoch))
        checkpoints.save({"epoch": epoch, "step": step, "weights": weights})
    names = [path.name[:19] for path in checkpoints.files()]
    assert names == ["epoch-000010-000000", "epoch-000010-000007"]
    state = checkpoints.load_last()
    assert state is not None
    assert state["epoch"] == 10
    assert state["weights"].tolist() == [10.0, 10.0]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_broken_one_is_named_and_the_one_before_taken(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": 1, "step": 0})
    path = checkpoints.save({"epoch": 2, "step": 0})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-7], "changed": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=f"{path.name} is corrupt"):
        state = checkpoints.load_last()
    assert state == {"epoch": 1, "step": 0}
    again = checkpoints.save({"epoch": 2, "step": 0, "other": True})
    checkpoints.save({"epoch": 3, "step": 0})
    assert checkpoints.files()[0] == again  # both of the last two are whole


@pytest.mark.filterwarnings("ignore:checkpoint")
def test_all_broken_is_an_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": 1, "step": 0}).write_bytes(b"")
    with pytest.raises(ValueError, match=r"no valid checkpoint .* all 1 are corrupt"):
        checkpoints.load_last()


def test_a_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "cannot write" in done.stdout
    assert "epoch-000002" in done.stdout
    assert "the last checkpoint is" in done.stdout
    assert Checkpoints(tmp_path).load_last() == {"epoch": 1, "step": 0}
    assert len(list(tmp_path.iterdir())) == 1  # no remains of the one that failed

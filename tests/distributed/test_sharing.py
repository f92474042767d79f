"""Commands in two and three processes give what one gives, and end together."""

import json
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from longtail.cli import main
from longtail.data import UnreadableImagesError
from longtail.errors import InputError, LostProcessError
from longtail.sharing import peers, shared, shared_by, sharing
from longtail.sharing.processes import Processes, _used
from longtail.training import Config, Embeddings

WORLDS = (2, 3)


@pytest.fixture(scope="session")
def folder(results_of: Callable[[str], Path]) -> Path:
    return results_of("commands")


@pytest.fixture(scope="session")
def statuses(folder: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = json.loads((folder / "statuses.json").read_text())
    return found


def said(folder: Path, name: str, world: int = 3, rank: int = 0) -> str:
    return (folder / f"{name}-{world}-{rank}.txt").read_text()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("name", "status"),
    [("predict", 1), ("embed", 0), ("evaluate", 0), ("advise", 0), ("photos", 2), ("pixels", 0)],
)
def test_only_the_first_process_speaks(
    folder: Path, statuses: dict[str, list[int]], name: str, status: int, world: int
) -> None:
    assert statuses[f"{name}-{world}"] == [status] + [0] * (world - 1)
    alone = said(folder, name, 1).replace("1.parquet", f"{world}.parquet")
    seconds = re.compile(r"\d+\.\d(?= +│\n)")  # in the table of `advise`
    assert seconds.sub("", said(folder, name, world)) == seconds.sub("", alone)
    assert [said(folder, name, world, rank) for rank in range(1, world)] == [""] * (world - 1)


@pytest.mark.parametrize("world", WORLDS)
def test_predictions_are_those_of_one_process_in_order(folder: Path, world: int) -> None:
    alone, ours = (pq.read_table(folder / f"{number}.parquet") for number in (1, world))
    assert ours.equals(alone)
    assert ours["path"].to_pylist() == (folder / "table.csv").read_text().split("\n")[1:]
    broken = [row for row, error in enumerate(ours["error"].to_pylist()) if error]
    assert broken == [5, 10]


@pytest.mark.parametrize("world", WORLDS)
def test_features_are_those_of_one_process(folder: Path, world: int) -> None:
    alone, ours = (Embeddings.read(folder / f"embed-{number}.parquet") for number in (1, world))
    np.testing.assert_array_equal(ours.features, alone.features)
    assert (ours.paths, ours.splits) == (alone.paths, alone.splits)
    assert len(ours.features) == len(np.unique(ours.features, axis=0)) == 16


@pytest.mark.parametrize("world", WORLDS)
def test_masks_are_those_of_one_process(folder: Path, world: int) -> None:
    alone, ours = folder / "photos-1", folder / f"photos-{world}"
    names = [f"{n}{kind}.png" for n in (0, 1, 2, 4) for kind in ("", "-overlay")]
    assert sorted(file.name for file in ours.iterdir()) == sorted([*names, "classes.txt"])
    for name in (*names, "classes.txt"):
        assert (ours / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "expected", "message"),
    [
        ("killed", [1, 0, -9], "error: another process of torchrun has ended before its work"),
        ("stopped", [130, 0, 0], "longtail: stopped\n"),
        ("unreachable", [2, 0, 0], "longtail: error: the server does not answer\n"),
        ("fault", [1, 0, 0], "ZeroDivisionError: a fault of its own\nIn another process:\n"),
        ("first-killed", [-9, 0, 0], ""),
    ],
)
def test_all_processes_end_with_one_that_fails(
    folder: Path, statuses: dict[str, list[int]], name: str, expected: list[int], message: str
) -> None:
    assert statuses[name] == expected
    assert message in said(folder, name)
    assert said(folder, name, rank=1) == said(folder, name, rank=2) == ""
    left = [file.name for file in folder.iterdir() if file.name.strip(".").startswith(f"{name}.")]
    assert name == "first-killed" or not left
    assert not (folder / f"{name}.parquet").exists()


def test_devices_starts_processes(folder: Path, tmp_path: Path) -> None:
    """Of two processes, one is a new one; their batches are smaller, so that both have one."""
    out = tmp_path / "out.parquet"
    words = ["predict", str(folder / "run"), str(folder / "table.csv"), "--out", str(out)]
    threads = torch.get_num_threads()
    assert main([*words, "--devices", "2"]) == 1
    assert torch.get_num_threads() == threads
    alone, ours = (pq.read_table(path).to_pydict() for path in (folder / "1.parquet", out))
    for name in ("path", "class", "error"):
        assert ours[name] == alone[name]
    for name in ("probability", "margin", "unlike"):
        np.testing.assert_allclose(
            np.array(ours[name], float), np.array(alone[name], float), atol=1e-6
        )


@pytest.mark.parametrize("command", ["predict", "evaluate", "embed", "advise"])
def test_devices_must_be_positive(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = {
        "predict": [str(folder / "run"), str(folder / "tree"), "--out", str(tmp_path / "a.csv")],
        "evaluate": [str(folder / "run")],
        "embed": [str(folder / "tree"), "--backbone", "x", "--out", str(tmp_path / "a.parquet")],
        "advise": [str(folder / "tree"), "--data.image-size", "32"],
    }
    assert main([command, *words[command], "--devices", "0"]) == 2
    assert "devices must be in [1, 1024], got 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_torchrun_and_devices_must_agree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "RANK": "0"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    assert main(["evaluate", "runs/x", "--devices", "2"]) == 2
    assert "devices must be that of torchrun, 4, or be left out, got 2" in capsys.readouterr().err


def test_train_takes_part_in_torchrun_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2", "RANK": "0"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    seen: list[int] = []

    def start(config: Config, *rest: object, **options: object) -> None:
        seen.append(config.devices)

    monkeypatch.setattr("longtail.api.start", start)
    monkeypatch.setattr("longtail.sharing.shared_by_torchrun", None)  # which is not called
    assert main(["train", "digits-lt", "--devices", "2"]) == 0
    assert seen == [2]


def doubled(numbers: Sequence[int]) -> Iterator[int]:
    yield from (2 * number for number in numbers)


SEEN: list[int] = []


def recorded(numbers: Sequence[int]) -> Iterator[int]:
    for number in numbers:
        SEEN.append(number)
        yield number


class Answering:
    """Stands in for another process."""

    def send(self, job: bytes, items: Sequence[int]) -> None:
        self.answers = pickle.loads(job)(items)

    def receive(self) -> int:
        return next(self.answers)

    def close(self) -> None:
        """Nothing to end."""

    join = close


def test_results_are_passed_on_as_they_come() -> None:
    others = Processes(3, 3, [Answering(), Answering()])
    with _used(others):
        results = shared(recorded, range(7))
        assert [next(results) for _ in range(4)] == SEEN == [0, 1, 2, 3]
        assert list(results) == [4, 5, 6]


def test_a_process_that_cannot_start_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PROGRAM", "import os; os.kill(os.getpid(), 9)")
    message = "process 2 of this command has ended by signal 9 before its work was done"
    with shared_by(2), pytest.raises(LostProcessError, match=message):
        list(shared(doubled, range(4)))


def test_no_process_is_started_without_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PROGRAM", "raise SystemExit(3)")
    with shared_by(3):
        assert sharing() == (3, 3)
        assert list(shared(doubled, [4])) == [8]
        assert list(shared(doubled, [])) == []
    assert sharing() == (1, 1)


def test_what_cannot_be_sent_is_refused() -> None:
    with shared_by(2), pytest.raises(InputError, match="cannot be sent to other processes"):
        list(shared(lambda numbers: iter(numbers), range(4)))


class TwoArgumentsError(Exception):
    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UnreadableImagesError([("a.png", "empty")], 3), InputError),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), UnicodeDecodeError),
        (KeyError("lost"), KeyError),
        (TwoArgumentsError("lost", 2), RuntimeError),
    ],
)
def test_an_error_keeps_its_message(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    def failing(items: Sequence[int]) -> Iterator[int]:
        raise error
        yield

    monkeypatch.setattr(peers, "_unpickled", lambda job: failing)
    ((_, found),) = peers._answers(b"", [1])
    assert type(found) is kind
    assert str(error) in str(found)
    assert "In another process" in found.__notes__[0]

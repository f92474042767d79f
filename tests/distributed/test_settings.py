"""Invalid numbers of processes, refused before anything starts."""

from pathlib import Path

import pytest

from longtail.cli import main
from longtail.data import DataConfig
from longtail.training import Config
from longtail.training.distributed import settle_processes

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}


def config(**settings: int) -> Config:
    return Config(DataConfig("digits-lt"), {"name": "ce"}, batch_size=64, **settings)  # type: ignore[arg-type]


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("settings", [{}, {"devices": 4, "nodes": 2}])
def test_torchrun_says_how_many(torchrun: None, settings: dict[str, int]) -> None:
    settled = settle_processes(config(**settings), 100)
    assert (settled.devices, settled.nodes) == (4, 2)


def test_torchrun_and_the_settings_must_agree(torchrun: None) -> None:
    with pytest.raises(ValueError, match=r"must be those of torchrun, \(4, 2\), .* got \(2, 1\)"):
        settle_processes(config(devices=2), 100)


def test_a_batch_is_shared_equally() -> None:
    with pytest.raises(
        ValueError, match="batch_size must be a multiple of the 6 processes, got 64"
    ):
        settle_processes(config(devices=3, nodes=2), 100)


def test_each_process_has_an_image_to_predict() -> None:
    with pytest.raises(ValueError, match=r"devices \* nodes must not exceed the 7 images .* got 8"):
        settle_processes(config(devices=8), 7)


def test_nothing_starts_with_invalid_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "digits-lt", "--method", "ce", "--out", str(tmp_path / "run")]
    assert main([*words, "--devices", "3"]) == 2
    assert "batch_size must be a multiple of the 3 processes, got 64" in capsys.readouterr().err
    assert main([*words, "--nodes", "0"]) == 2
    assert "nodes must be in [1, 1024], got 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

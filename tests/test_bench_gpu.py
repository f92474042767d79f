"""The first minutes on a GPU, tried on the CPU at tiny sizes."""

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location("bench_gpu", BENCH / "gpu.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_gpu", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five classes in mosaics of four images a row, of which every second image is kept."""
    folder, draw = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for name, rows in (("train_lt", 12), ("test", 5)):
        count = 4 * rows - 1  # the last tile is empty
        labels = np.arange(count) % 5
        mosaic = draw.integers(0, 200, (rows, 4, 32, 32, 3), dtype=np.uint8)
        picture = mosaic.transpose(0, 2, 1, 3, 4).reshape(32 * rows, 128, 3)
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "webp", lossless=True)
        packed = np.frombuffer(out.getvalue(), np.uint8)
        np.savez(
            folder / f"{name}.npz",
            webp=packed,
            lengths=[len(packed)],
            count=count,
            index=7 * np.arange(count),
            labels=labels.astype(np.uint8),
        )
        np.save(folder / f"{name}.npy", mosaic.reshape(-1, 32, 32, 3)[:count])
    np.savetxt(folder / "imbalance_100.index.txt", 7 * np.arange(0, 47, 2), fmt="%d")
    return folder


def run(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny", *map(str, words)])
    gpu.main()


def test_images_of_the_packed_files(gpu: ModuleType, data: Path) -> None:
    dataset = gpu.cifar100(data)
    original = np.load(data / "train_lt.npy")[::2]
    assert np.array_equal(dataset.train.images.permute(0, 2, 3, 1).numpy(), original)
    assert dataset.train.index.tolist() == [14 * i for i in range(24)]
    assert dataset.train.labels[:3].tolist() == [0, 2, 4]
    assert len(dataset.test) == 19


@pytest.mark.parametrize("stage", ["start", "agree", "scores", "waits", "step"])
def test_every_stage(
    stage: str, gpu: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(gpu, monkeypatch, "--data", data, "--out", tmp_path, "--only", stage)
    written = json.loads((tmp_path / f"{stage}.json").read_text())
    assert written["environment"]["python"]
    rows: list[dict[str, Any]] = written["rows"]
    errors = [row[name] for row in rows for name in ("loss_error", "error") if name in row]
    assert len(errors) == (stage in ("agree", "scores"))
    assert max(errors, default=0) < 1e-4
    assert [row for row in rows if "not_measured" in row] == (
        [row for row in rows if row.get("recorded", stage == "waits")]  # no GPU here
    )


@pytest.mark.parametrize("method", ["ce", "gml"])
def test_a_training(
    method: str, gpu: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(gpu, monkeypatch, "--data", data, "--out", tmp_path, "--only", f"train:{method}")
    (row,) = json.loads((tmp_path / f"train-{method}.json").read_text())["rows"]
    assert row["method"] == method
    assert row["epochs"] == 1
    assert 0 <= row["accuracy"] <= 100


def test_a_stage_that_fails_or_is_late_does_not_stop_the_next(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = "import pathlib; pathlib.Path('{}.json').write_text('{{\"rows\": [1]}}')"
    scripts = {
        "fails": "raise SystemExit('reason')",
        "late": write.format("late") + "; import time; time.sleep(60)",
        "fine": write.format("fine"),
        "train:one": "raise SystemExit('no such method')",
        "train:two": write.format("train-two"),
    }

    def started(name: str, log: Path) -> "subprocess.Popen[bytes]":
        with log.open("w") as file:
            words = [sys.executable, "-S", "-c", scripts[name]]
            return subprocess.Popen(words, stderr=file, cwd=tmp_path)

    monkeypatch.setattr(gpu, "started", started)
    monkeypatch.setattr(gpu, "LIMITS", {"fails": 100, "late": 3, "fine": 100})
    words = ["--data", tmp_path, "--out", tmp_path, "--stages", "fails", "late", "fine", "train"]
    run(gpu, monkeypatch, *words, "--budget", "1000", "--methods", "one", "two")
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert found == {
        "fails": {"rows": [], "failed": "reason"},
        "late": {"rows": [1], "failed": "not done within 3 seconds; "},
        "fine": {"rows": [1]},
        "train-one": {"rows": [], "failed": "no such method"},
        "train-two": {"rows": [1]},
    }

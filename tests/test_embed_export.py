"""Wrong input of `longtail embed` and `longtail export`: what is said, and that nothing is left."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from longtail.cli import main
from longtail.training import Embeddings, Run

TINY = ["--epochs", "1", "--batch_size", "64", "--precision", "32-true"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "ce"
    assert main(["train", "digits-lt", "--method", "ce", "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture
def unfinished(run: Path, tmp_path: Path) -> Path:
    copy = shutil.copytree(run, tmp_path / "unfinished")
    for name in ("model.safetensors", "predictions.parquet", "metrics.json"):
        (copy / name).unlink()
    return copy


def test_features_of_a_run(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    assert main(["embed", "digits-lt", "--backbone", str(run), "--out", str(out)]) == 0
    found = Embeddings.read(out)
    assert found.features.dtype == np.float32
    assert [len(found.split(split)[1]) for split in ("train", "test")] == [411, 400]
    with pytest.raises(ValueError, match=r"must be one of \['test', 'train'\], got 'val'"):
        found.split("val")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits-lt", "--backbone", "resnet33"], "resnet33"),
        (["digits-lt", "--backbone", "resnet32"], "resnet32"),
        (["no-such-folder", "--backbone", "RUN"], "no-such-folder"),
        (["digits-lt", "--backbone", "."], "is not a run folder"),
        (["digits-lt", "--backbone", "RUN", "--data.image_size", "0"], "image_size must be 1"),
        (["digits-lt", "--backbone", "RUN", "--precision", "int8"], "precision"),
        (["digits-lt"], "backbone"),
        (["--backbone", "RUN"], "needs DATA"),
    ],
)
def test_wrong_words_for_embed(
    words: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(run) if word == "RUN" else word for word in words]
    assert main(["embed", *given, "--out", "x.parquet"]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_embed_needs_a_file_to_write(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "digits-lt", "--backbone", str(run)]) == 2
    assert "out" in capsys.readouterr().err


def test_a_place_where_nothing_can_be_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    out = str(tmp_path / "file" / "x")
    commands = (
        ["embed", "digits-lt", "--backbone", str(run), "--out", out],
        ["export", str(run), "--to", "safetensors", "--out", out],
    )
    for words in commands:
        assert main(words) == 1  # no fault of the words
        assert "file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_has_not_ended(
    unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    commands = (
        ["embed", "digits-lt", "--backbone", str(unfinished), "--out", str(out)],
        ["export", str(unfinished), "--to", "safetensors", "--out", str(out)],
        ["export", str(unfinished), "--to", "onnx", "--out", str(out)],
    )
    for words in commands:
        assert main(words) == 2
        assert "training has not ended" in capsys.readouterr().err
    assert not out.exists()


def test_export_of_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--to", "safetensors"]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_export_leaves_the_weights_of_the_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "model.safetensors").read_bytes()
    assert main(["export", str(run), "--to", "safetensors"]) == 2
    assert "out must be a file for safetensors" in capsys.readouterr().err
    assert (run / "model.safetensors").read_bytes() == before


def test_weights_as_they_are_in_the_run(run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    out = tmp_path / "w.safetensors"
    assert main(["export", str(run), "--to", "safetensors", "--out", str(out)]) == 0
    written, weights = load_file(out), Run(run).model().state_dict()
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[name], value) for name, value in weights.items())


def test_files_that_hold_no_embeddings(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for content in (b"", b"PAR1 but no more"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x.parquet is not a valid file of embeddings"):
            Embeddings.read(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match=r"x.parquet is not a valid file of embeddings"):
        Embeddings.read(path)
    with pytest.raises(ValueError, match=r"y.parquet is not a valid file of embeddings"):
        Embeddings.read(tmp_path / "y.parquet")

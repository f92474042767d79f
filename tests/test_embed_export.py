"""`longtail embed` and `longtail export`: files that agree with the run, and invalid input."""

import json
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from longtail.api import export, predict
from longtail.cli import main
from longtail.data.images import resize_crop, to_tensor
from longtail.errors import InputError
from longtail.export import Deployed, Fit
from longtail.models import ImageClassifier
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
        (
            ["digits-lt", "--backbone", "RUN", "--data.image_size", "0"],
            "image_size must be in [1, 8192]",
        ),
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


@pytest.mark.filterwarnings("ignore")  # what the exporter says of itself
@pytest.mark.parametrize("words", ["report", "export --to safetensors", "export --to onnx"])
def test_a_full_disk_leaves_the_file_that_was_there(
    words: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    out = tmp_path / "out"
    out.write_text("before")
    command, *options = words.split()
    with full_disk(1000):
        status = main([command, str(run), *options, "--out", str(out)])
    assert status == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"longtail: error: cannot write {out}: ")
    assert "File too large" in said
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "before")]


def test_a_run_that_has_not_ended(
    unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    commands = (
        ["embed", "digits-lt", "--backbone", str(unfinished), "--out", f"{out}.parquet"],
        ["export", str(unfinished), "--to", "safetensors", "--out", str(out)],
        ["export", str(unfinished), "--to", "onnx", "--out", str(out)],
    )
    for words in commands:
        assert main(words) == 2
        assert "training has not ended" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


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


def photograph(path: Path, width: int, height: int, mode: str = "RGB", turn: int = 1) -> Path:
    """A smooth picture, as photographs are, with some noise."""
    generator = np.random.default_rng(width * height)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    pixels = (smooth + generator.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).convert(mode).save(path, exif=exif)
    return path


# What the guide shows: a dozen lines that need neither PyTorch nor this package.
USE = """
import json
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

onnxruntime.set_default_logger_severity(3)  # silences a warning that log_prior can be overridden
session = onnxruntime.InferenceSession(FILE, providers=["CPUExecutionProvider"])
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
image = ImageOps.exif_transpose(Image.open(PHOTOGRAPH)).convert("RGB")
images = np.asarray(image).transpose(2, 0, 1)[None]  # (1, 3, height, width), uint8
log_prior = np.log(np.full(len(names), 1 / len(names), dtype=np.float32))  # equally frequent
(p,) = session.run(["probabilities"], {"images": images, "log_prior": log_prior})
print(names[p[0].argmax()], p[0].max())
"""


@pytest.fixture(scope="module")
def onnx_file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    out = tmp_path_factory.mktemp("export") / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporter says of itself
        assert main(["export", str(run), "--out", str(out)]) == 0
    return out


def test_the_file_takes_any_photograph_and_agrees_with_predict(
    run: Path, onnx_file: Path, tmp_path: Path
) -> None:
    session = session_of(onnx_file)
    modes, generator = ("RGB", "L", "CMYK", "RGB"), np.random.default_rng(0)
    files = [
        photograph(
            tmp_path / f"{n:02}{('.jpg', '.png')[n % 2] if modes[n % 4] == 'RGB' else '.jpg'}",
            *generator.integers(1, 700, 2).tolist(),
            mode=modes[n % 4],
            turn=(1, 6, 3)[n % 3],
        )
        for n in range(50)
    ]
    expected = predict(run, files).logits.double().softmax(1).numpy()
    for file, wanted in zip(files, expected, strict=True):
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        (found,) = session.run(["probabilities"], {"images": as_images(image)})
        assert np.abs(found[0] - wanted).max() < 0.01, file


def test_many_photographs_at_once(onnx_file: Path) -> None:
    session = session_of(onnx_file)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 31, 47), dtype=np.uint8)
    (together,) = session.run(["logits"], {"images": images})
    each = [session.run(["logits"], {"images": images[n : n + 1]})[0][0] for n in range(5)]
    np.testing.assert_allclose(together, np.stack(each), atol=1e-4)  # other orders of sums


def test_the_lines_of_the_guide(
    run: Path, onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = photograph(tmp_path / "x.jpg", 640, 427)
    exec(compile(USE, "guide", "exec"), {"FILE": str(onnx_file), "PHOTOGRAPH": str(file)})
    name, probability = capsys.readouterr().out.split()
    classified = predict(run, file, "uniform")
    ((_, ((best, value),)),) = classified.top(1)
    assert name == best
    assert float(probability) == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(224, 224), (97, 301), (300, 98), (5, 7), (1, 1), (640, 428)])
@pytest.mark.parametrize("margin", [1.0, 256 / 224])
def test_resized_images_are_those_of_pillow(
    fit: Fit, shape: tuple[int, int], margin: float
) -> None:
    height, width = shape
    generator = np.random.default_rng(height)
    image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    deployed = Deployed(ImageClassifier.__new__(ImageClassifier), torch.zeros(2), 64, margin, fit)
    (found,) = deployed.resized(torch.from_numpy(as_images(image)))
    if fit == "crop":
        expected = resize_crop(image, 64, margin)
    elif fit == "squash":
        expected = to_tensor(image.resize((64, 64), Image.Resampling.BILINEAR))
    else:
        side = max(width, height)
        if (height - width) % 2 or side < 64:
            return  # the bars of a square image are half a pixel off, or its border is mixed
        square = Image.new("RGB", (side, side))
        square.paste(image, ((side - width) // 2, (side - height) // 2))
        expected = to_tensor(square.resize((64, 64), Image.Resampling.BILINEAR))
        # Pillow mixes the bars into the border; here the border is the image's own.
        inside = slice(round(32 - 32 * height / side) + 2, round(32 + 32 * height / side) - 2)
        across = slice(round(32 - 32 * width / side) + 2, round(32 + 32 * width / side) - 2)
        found, expected = found[:, inside, across], expected[:, inside, across]
    assert found.shape == expected.shape
    # Pillow computes with fixed-point weights.
    assert (found.int() - expected.int()).abs().max() <= 2


@pytest.mark.filterwarnings("ignore")  # what the exporter says of itself
def test_the_way_to_fit_is_in_the_file(run: Path, onnx_file: Path, tmp_path: Path) -> None:
    wide = as_images(Image.open(photograph(tmp_path / "x.png", 300, 60)))
    found = {}
    for fit in ("crop", "pad", "squash"):
        out = tmp_path / f"{fit}.onnx"
        assert main(["export", str(run), "--fit", fit, "--out", str(out)]) == 0
        session = session_of(out)
        assert json.loads(session.get_modelmeta().custom_metadata_map["fit"]) == fit
        (found[fit],) = session.run(["logits"], {"images": wide})
    assert not np.allclose(found["crop"], found["pad"], atol=1e-2)
    assert not np.allclose(found["crop"], found["squash"], atol=1e-2)
    assert not np.allclose(found["pad"], found["squash"], atol=1e-2)


def test_fit_is_checked(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    with pytest.raises(InputError, match=r"fit must be one of .*'crop', 'pad', 'squash'.* 'zoom'"):
        export(run, "onnx", out, fit="zoom")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"fit must be 'crop' for safetensors.* got 'pad'"):
        export(run, "safetensors", out, fit="pad")
    assert not out.exists()


def as_images(image: Image.Image) -> NDArray[np.uint8]:
    """(1, 3, height, width)."""
    return np.array(image).transpose(2, 0, 1)[None].copy()  # writable


def session_of(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def test_files_that_hold_no_embeddings(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for content in (b"", b"PAR1 but no more"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x.parquet is not a valid file of embeddings"):
            Embeddings.read(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match=r"x.parquet is not a valid file of embeddings"):
        Embeddings.read(path)
    about = {"longtail": json.dumps({"class_names": ["a", "b"], "name": "x", "backbone": "y"})}
    good = {"label": [0, 1], "split": ["train"] * 2, "path": ["a", "b"], "index": [0, 1]}
    pairs = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    for wrong in (
        {"features": [0.5, 0.5]},
        {"features": pa.array([[1.0, 2.0], None], pairs.type)},
        {"features": pa.array([[1.0, 2.0], [3.0, None]], pairs.type)},
        {"features": [[1.0], [2.0, 3.0]]},
        {"features": pairs, "label": [0, 2]},
    ):
        table = pa.table({"features": pairs, **good, **wrong}).replace_schema_metadata(about)
        pq.write_table(table, path)
        with pytest.raises(ValueError, match=r"x.parquet is not a valid file of embeddings"):
            Embeddings.read(path)
    pq.write_table(pa.table({"features": pairs, **good}).replace_schema_metadata(about), path)
    assert Embeddings.read(path).features.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match=r"y.parquet is not a valid file of embeddings"):
        Embeddings.read(tmp_path / "y.parquet")

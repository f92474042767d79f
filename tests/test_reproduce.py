"""The matrix: configurations that parse to the settings, finished runs, results, table."""

import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import longtail
from longtail.api import reproduce
from longtail.files import write_text
from longtail.recipes import cifar_lt
from longtail.reproduce import Cell, matrix, row_names, table
from longtail.reproduce.cells import scaled
from longtail.reproduce.results import ResultFile
from longtail.settings import from_keywords, to_config
from longtail.training import Config, Run

SOURCE = "cifar100-lt"
RESULTS = ("lade-shift.json", "cifar100-lt.json")


def cell(row: str, scale: float = 0.1, runs: Path = Path("runs")) -> Cell:
    return Cell(SOURCE, row, 100, 0, scale, runs)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts a quick run of digits into the place of each run; returns the rows trained."""
    rows: list[str] = []
    monkeypatch.setattr(Cell, "check", lambda cell, root: None)  # its settings are others

    def train(chosen: Cell, *rest: object) -> int:
        rows.append(chosen.row)
        if chosen.row == "focal":
            return 1
        longtail.train("digits-lt", "ce", out=chosen.folder, epochs=1, device="cpu")
        return 0

    monkeypatch.setattr(matrix, "_train", train)
    return rows


@pytest.mark.parametrize("source", sorted(cifar_lt.PUBLISHED))
@pytest.mark.parametrize("row", row_names(SOURCE))
def test_configurations_parse_to_scaled_settings(source: str, row: str) -> None:
    chosen = Cell(source, row, 50, 3, 0.1, Path("runs"))
    if not chosen.trains:
        assert chosen.of
        assert chosen.folder == chosen.of.folder
        return
    config = to_config(from_keywords(**chosen.config("somewhere")))
    assert (config.data.source, config.data.imbalance, config.seed) == (source, 50, 3)
    assert config.data.root == "somewhere"
    assert chosen.epochs == 20
    due = {name: value for name, value in chosen.settings.items() if name != "method"}
    due = {"views": "weak", **due}
    due["views"] = [due["views"]] if isinstance(due["views"], str) else list(due["views"])
    if chosen.of:
        due["teacher" if row in cifar_lt.TEACHER else "first"] = str(chosen.of.folder)
    for name, value in due.items():
        if name not in ("first_stage", "teacher_stage"):
            found = getattr(config, name)
            assert (found.as_posix() if isinstance(found, Path) else found) == value, name
    for name, value in chosen.settings.get("method", {}).items():
        assert config.method[name] == value or value.items() <= config.method[name].items()
    stage = {**config.first_stage, **config.teacher_stage}
    assert stage.get("epochs", 20) == 20
    assert config.epochs == {"crt": 2, "lws": 2, "supcon": 2, "tau_norm": 0}.get(row, 20)


def test_proco_decays_later_in_400_epochs() -> None:
    for scale, milestones in ((1.0, [0.8, 0.9]), (2.0, [0.9, 0.95])):
        config = to_config(from_keywords(**cell("proco", scale).config(None)))
        assert config.epochs == 200 * scale
        assert config.milestones == milestones


def test_a_recipe_trains_as_its_paper_says() -> None:
    bcl = to_config(from_keywords("cifar100-lt", "bcl"))
    assert (bcl.epochs, bcl.batch_size, bcl.lr, bcl.weight_decay) == (200, 256, 0.15, 5e-4)
    assert bcl.views == ["auto", "sim", "sim"]
    lade = to_config(from_keywords("cifar100-lt", "lade"))
    assert (lade.backbone, lade.batch_size, lade.lr) == ("resnet32_branched", 256, 0.2)
    gml = to_config(from_keywords("cifar100-lt", "gml"))
    assert gml.method["queue_size"] == 4096
    assert gml.teacher_stage == {"backbone": "resnet56"}


def test_done_runs_are_not_run_again(tmp_path: Path, trained: list[str]) -> None:
    settings = {"seeds": 1, "runs": tmp_path / "runs", "out": tmp_path / "r.json", "jobs": 1}
    rows = reproduce(SOURCE, methods=["crt", "pc_softmax", "lade"], epochs_scale=0.1, **settings)
    assert sorted(trained) == ["ce", "crt", "lade"]
    assert trained.index("ce") < trained.index("crt")  # which stands on it
    assert [row["method"] for row in rows] == ["crt", "pc_softmax", "lade"]
    again = reproduce(SOURCE, methods=["crt", "pc_softmax", "lade"], epochs_scale=0.1, **settings)
    assert len(trained) == 3
    stored = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert again == rows
    assert [row["method"] for row in stored] == ["lade", "crt", "pc_softmax"]  # as `row_names`
    assert all(row in rows for row in stored)
    assert (tmp_path / "r.md").read_text() == table(stored)


def test_a_student_is_trained_from_the_kept_weights_of_its_teacher(
    tmp_path: Path, trained: list[str]
) -> None:
    settings = {"seeds": 1, "runs": tmp_path / "runs", "out": tmp_path / "r.json", "jobs": 1}
    reproduce(SOURCE, methods=["gml"], **settings)
    assert trained == ["gml_teacher", "gml"]
    kept = tmp_path / "weights"
    names = ("cifar100-lt-gml-100", "cifar100-lt-gml_teacher-100")
    assert sorted(file.stem for file in kept.iterdir()) == sorted(names)
    student = Cell(SOURCE, "gml", 100, 0, 1.0, tmp_path / "runs", kept)
    assert student.config(None)["teacher"] == str(student.of.folder)
    shutil.rmtree(tmp_path / "runs")
    assert student.config(None)["teacher"] == str(kept / "cifar100-lt-gml_teacher-100.safetensors")
    reproduce(SOURCE, methods=["gml_dbm"], **settings)
    assert trained == ["gml_teacher", "gml", "gml_dbm"]
    other = {**settings, "out": tmp_path / "elsewhere/r.json"}
    reproduce(SOURCE, methods=["gml_dbm"], **{**other, "runs": tmp_path / "new"})
    assert trained[3:] == ["gml_teacher", "gml_dbm"]


def test_rows_of_other_runs_stay_in_the_file(
    tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"seeds": 1, "runs": tmp_path / "runs", "out": tmp_path / "r.json", "jobs": 1}
    reproduce(SOURCE, methods=["ce"], epochs_scale=1.0, **settings)
    said = capsys.readouterr()
    assert said.err.startswith("0 of 1 runs are done")
    assert "runs are done" not in said.out
    reproduce(SOURCE, methods="lade", epochs_scale=0.1, **settings)
    reproduce(SOURCE, methods=["ce"], epochs_scale=1.0, **settings)
    with pytest.raises(ChildProcessError):
        reproduce(SOURCE, methods=["focal"], **settings)
    stored = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert [(row["method"], row["epochs_scale"]) for row in stored] == [("ce", 1.0), ("lade", 0.1)]
    text = (tmp_path / "r.md").read_text()
    assert text.count("published, 200 epochs") == 2  # a table for each length of training


def test_a_group_without_a_class_is_not_available(tmp_path: Path) -> None:
    base = {"data": "cifar10-lt", "imbalance": 10, "method": "ce", "epochs": 200}
    base |= {"epochs_scale": 1.0, "accuracy": 90.0, "many": 90.0, "ece": 5.0, "minutes": 2.0}
    rows = [{**base, "medium": float("nan"), "few": None}] * 2
    assert "| 90.0 ± 0.0 | 90.0 ± 0.0 | n/a | n/a | 5.0 ± 0.0 |" in table(rows)


def test_pc_softmax_is_its_run_judged_for_the_uniform_mix(
    tmp_path: Path, trained: list[str]
) -> None:
    out = tmp_path / "r.json"
    rows = reproduce(SOURCE, methods=["ce", "pc_softmax"], seeds=1, runs=tmp_path, out=out, jobs=1)
    folder = cell("ce", 1.0, tmp_path).folder
    assert rows[1]["accuracy"] == round(100 * longtail.evaluate(folder, "uniform")["accuracy"], 2)
    assert rows[0]["accuracy"] != rows[1]["accuracy"]


def test_failed_runs_are_named_and_the_others_kept(tmp_path: Path, trained: list[str]) -> None:
    out = tmp_path / "r.json"
    with pytest.raises(ChildProcessError, match="focal-100-200epochs-seed0"):
        reproduce(SOURCE, methods=["focal", "ce", "ce"], seeds=1, runs=tmp_path, out=out, jobs=1)
    assert [row["method"] for row in json.loads(out.read_text())["runs"]] == ["ce"]


def test_a_finished_run_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"data": "digits-lt", "method": "ce", "epochs": 1}  # the rest is open or a default
    monkeypatch.setattr(Cell, "config", lambda cell, root: asked)
    chosen = cell("ce", 1.0, tmp_path)
    longtail.train("digits-lt", "ce", out=chosen.folder, epochs=1)
    chosen.check(None)
    file = chosen.folder / "config.yaml"
    stored = yaml.safe_load(file.read_text())
    # An older version had fewer settings.
    older = {name: value for name, value in stored.items() if name not in ("sam", "ema")}
    file.write_text(yaml.safe_dump(older))
    chosen.check(None)
    asked["sam"] = 0.1
    with pytest.raises(ValueError, match=r"sam was 0\.0 and is 0\.1"):
        chosen.check(None)


def test_a_run_with_other_settings_is_not_taken(tmp_path: Path) -> None:
    chosen = cell("ce", 1.0, tmp_path)
    longtail.train("digits-lt", "ce", out=chosen.folder, epochs=1, device="cpu")
    with pytest.raises(
        ValueError, match=r"holds a run with other settings .*epochs was 1 and is 200"
    ):
        reproduce(SOURCE, methods=["ce"], seeds=1, runs=tmp_path, out=tmp_path / "r.json", jobs=1)
    with pytest.raises(ValueError, match="holds a run with other settings"):  # it stands on ce
        reproduce(SOURCE, methods=["pc_softmax"], seeds=1, runs=tmp_path, out=tmp_path / "r.json")


@pytest.mark.parametrize(
    ("visible", "count", "jobs", "expected"),
    [
        (None, 0, 2, [None, None]),
        (None, 2, 3, ["0", "1", "0"]),
        ("5,3", 2, 2, ["5", "3"]),
        ("GPU-a", 1, 2, ["GPU-a", "GPU-a"]),
        ("0,1,-1,2", 2, 2, ["0", "1"]),  # what follows an index that is none is not there
        ("", 0, 1, [""]),  # none are to be seen, which stays so
    ],
)
def test_gpus_are_given_out_in_turn(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    count: int,
    jobs: int,
    expected: list[str | None],
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(Cell, "config", lambda cell, root: {})
    seen: list[str | None] = []

    class Process:
        """Notes what a run would see, and holds on until all of them have begun."""

        def __init__(self, words: list[str], env: dict[str, str], stdout: int) -> None:
            assert stdout == 2  # the standard output is for the results
            seen.append(env.get("CUDA_VISIBLE_DEVICES"))

        def __enter__(self) -> "Process":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def wait(self) -> int:
            begun.wait()
            return 0

    begun = threading.Barrier(jobs, timeout=60)
    monkeypatch.setattr(matrix.subprocess, "Popen", Process)
    cells = [cell(row, runs=tmp_path) for row in ("ce", "focal", "ldam")[:jobs]]
    assert matrix._train_all(cells, None, jobs, lambda: None) == ""
    assert sorted(map(str, seen)) == sorted(map(str, expected))


def test_a_result_file_of_something_else_is_told_before_the_training(
    tmp_path: Path, trained: list[str]
) -> None:
    results = Path(__file__).parents[1] / "results"
    lade, matrix_of_100 = (json.loads((results / name).read_text()) for name in RESULTS)
    torn = {"runs": [{**matrix_of_100["runs"][0], "accuracy": "high"}]}
    asked = {"seeds": 1, "runs": tmp_path, "out": tmp_path / "r.json"}
    for source, contents in (
        (SOURCE, [{"a": 1}, {"runs": 1}, {"runs": [3]}, {"runs": {"a": 1}}, torn, lade]),
        ("lade-shift", [{"a": 1}, {"runs": [{"method": "gml"}]}, matrix_of_100]),
    ):
        methods = {"methods": ["ce"]} if source == SOURCE else {}
        for content in contents:
            text = json.dumps(content)
            (tmp_path / "r.json").write_text(text)
            with pytest.raises(
                ValueError, match=r"must be a result file of the same table, .*r\.j"
            ):
                reproduce(source, **methods, **asked)
            assert (tmp_path / "r.json").read_text() == text
    assert trained == []


def test_a_result_file_is_locked_and_written_with_its_table_or_not_at_all(tmp_path: Path) -> None:
    lock, out = tmp_path / ".r.json.lock", tmp_path / "r.json"

    def text(rows: Sequence[dict[str, Any]]) -> str:
        assert lock.exists() or not rows
        return " ".join(row["text"] for row in rows)

    file = ResultFile(out, lambda row: (row["number"],), text)
    file.add([{"number": 2, "text": "b"}, {"number": 1, "text": "a"}])
    with pytest.raises(TypeError):
        file.add([{"number": 3, "text": 3}])
    file.add([{"number": 2, "text": "c"}])
    assert json.loads(out.read_text())["runs"] == [
        {"number": 1, "text": "a"},
        {"number": 2, "text": "c"},
    ]
    assert out.with_suffix(".md").read_text() == "a c"


@pytest.mark.parametrize("row", ["gml", "crt"])
def test_a_run_keeps_the_model_that_it_was_started_with(row: str, tmp_path: Path) -> None:
    kept = tmp_path / "weights"
    student = Cell(SOURCE, row, 100, 0, 1.0, tmp_path / "runs", kept)
    assert student.of
    file = kept / f"{student.of.weights}.safetensors"
    kept.mkdir()
    file.touch()

    def start() -> None:
        """Leaves the folder of a run that is started now."""
        Run.create(student.folder, started().stored)

    def started() -> Config:
        return to_config(from_keywords(**student.config(None)))

    start()
    assert (student.given, student.needs) == (file, None)
    student.of.folder.mkdir(parents=True)  # its run is there now as well
    assert getattr(started(), student.stage) == str(file)
    assert student.needs is None
    student.check(None)
    shutil.rmtree(student.folder)
    assert student.given == student.of.folder
    start()
    assert student.needs == student.of
    shutil.rmtree(student.of.folder)
    with pytest.raises(ValueError, match=f"other settings .{student.stage} was "):
        student.check(None)
    for name in ("metrics.json", "model.safetensors"):
        (student.folder / name).write_text('{"selection": "last epoch"}')
    assert student.done
    student.check(None)  # of an ended run, it may be gone
    assert student.needs is None
    config = yaml.safe_load((student.folder / "config.yaml").read_text())
    write_text(student.folder / "config.yaml", yaml.safe_dump({**config, student.stage: "none"}))
    with pytest.raises(ValueError, match=f"other settings .{student.stage} was 'none'"):
        student.check(None)


def test_table_has_mean_deviation_and_published_figure() -> None:
    base = {"data": SOURCE, "imbalance": 100, "method": "gml", "epochs": 200, "epochs_scale": 1.0}
    base |= {"many": 70.0, "medium": 50.0, "few": 30.0, "ece": 5.0, "minutes": 2.0}
    text = table([{**base, "accuracy": 52.0}, {**base, "accuracy": 54.0}])
    assert "| gml | 200 | 2 | 53.0 | 53.0 ± 1.4 | 70.0 ± 0.0 |" in text
    assert "scaled" not in text
    assert "scaled by 0.1" in table([{**base, "accuracy": 52.0, "epochs_scale": 0.1}])


def test_epochs_are_whole_and_at_least_one() -> None:
    assert [scaled(200, 0.1), scaled(20, 0.01), scaled(0, 2.0)] == [20, 1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["gmll"]}, r"methods of cifar100-lt must be of .* got \['gmll'\]"),
        ({"seeds": 0}, r"seeds must be in \[1, \d+\], got 0"),
        ({"out": "table.md"}, r"out of reproduce must be a \.json file, got table\.md"),
        ({"jobs": 0}, r"jobs must be in \[1, \d+\], got 0"),
        ({"epochs_scale": 0.0}, r"epochs_scale must be > 0, got 0.0"),
        ({"source": "mnist"}, "source must be one of .* got 'mnist'"),
    ],
)
def test_wrong_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reproduce(**{"source": SOURCE, **settings})


def test_lade_shift_evaluates_both_runs_on_the_shifted_sets(
    tmp_path: Path, trained: list[str]
) -> None:
    out = tmp_path / "shift.json"
    settings = {"seeds": 1, "epochs_scale": 0.1, "runs": tmp_path / "runs", "out": out, "jobs": 1}
    rows = {row["method"]: row for row in reproduce("lade-shift", **settings)}
    assert trained == ["ce_branched", "lade"]
    assert [*rows] == ["softmax", "pc_softmax", "lade"]
    folder = Cell(SOURCE, "ce_branched", 50, 0, 0.1, tmp_path / "runs").folder
    columns = {(c["direction"], c["ratio"]): c["scores"] for c in longtail.api.protocol(folder)}
    for method, prior in (("softmax", "raw"), ("pc_softmax", "known")):
        for title, key in (("F50", ("forward", 50)), ("B2", ("backward", 2))):
            assert rows[method]["accuracy"][title] == round(
                100 * columns[key][prior]["accuracy"], 2
            )
    uniform = longtail.evaluate(folder, "uniform")  # digits' test set is nearly balanced
    assert rows["pc_softmax"]["balanced"]["nll"] == pytest.approx(uniform["nll"], abs=0.05)
    text = out.with_suffix(".md").read_text()
    assert "| lade, published | 200 |  | 67.4 |" in text
    assert "| lade, published | 200 |  | 0.148 | n/a | 0.658 | 2.02 |" in text
    reproduce("lade-shift", **settings)
    assert len(trained) == 2
    assert len(json.loads(out.read_text())["runs"]) == 3


@pytest.mark.parametrize("name", ["methods", "imbalance"])
def test_lade_shift_has_the_settings_of_its_paper(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} of lade-shift is fixed by its paper"):
        reproduce("lade-shift", runs=tmp_path, **{name: [50]})

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from longtail import ClassPrior
from longtail.metrics import classification_metrics
from longtail.report import load_run, write_report
from longtail.report import run as run_module
from longtail.shift import adjust

NAMES = ["cat", "dog", "Käfer"]
COUNTS = [200, 50, 5]


def write_predictions(path, logits, labels, **about):
    logits = np.asarray(logits, dtype=np.float32)
    table = pa.table(
        {
            "logits": pa.FixedSizeListArray.from_arrays(logits.reshape(-1), logits.shape[1]),
            "label": labels,
            "index": np.arange(len(labels)),
            "path": [f"{i}.png" for i in range(len(labels))],
        }
    )
    known = {
        "class_names": NAMES,
        "class_counts": COUNTS,
        "expressed": "source",
        "split": "val",
        "name": "x",
    }
    metadata = {"longtail": json.dumps({**known, **about})}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=7)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "config.yaml").write_text("method: {name: gml}\nlr: 0.1\n")
    (folder / "environment.json").write_text('{"command": ["longtail", "train"]}')
    (folder / "metrics.jsonl").write_text('{"epoch": 0, "loss": 2.0}\n{"epoch": 1, "loss": NaN}\n')
    metrics = '{"accuracy": 0.25, "few": null, "ece": null, "selection": "last epoch"}'
    (folder / "metrics.json").write_text(metrics)
    (folder / "model.safetensors").touch()
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(40, 3)), generator.integers(3, size=40)
    write_predictions(folder / "predictions.parquet", logits, labels)
    return folder


def test_run_folder_is_read_whole(folder, monkeypatch):
    monkeypatch.setattr(run_module, "BATCH_ELEMENTS", 3 * 11)  # several batches, cut unevenly
    run = load_run(folder)
    assert run.name == "my run"
    assert run.config == {"method": {"name": "gml"}, "lr": 0.1}
    assert run.environment["command"] == ["longtail", "train"]
    assert [record["epoch"] for record in run.history] == [0, 1]
    assert tuple(run.class_names) == tuple(NAMES)
    assert run.prior == ClassPrior(COUNTS)
    assert (run.expressed, run.split) == ("source", "val")
    table = pq.read_table(folder / "predictions.parquet")
    logits = torch.tensor(np.stack(table["logits"].to_numpy()))
    labels = torch.tensor(table["label"].to_numpy())
    assert run.metrics == pytest.approx(classification_metrics(logits, labels, ClassPrior(COUNTS)))
    adjusted = adjust(logits, ClassPrior(COUNTS), [1 / 3] * 3)
    assert run.uniform.predicted.equal(adjusted.argmax(1))
    assert run.paths == tuple(f"{number}.png" for number in range(40))
    assert run.folder == folder.as_posix()
    write_report([run], folder / "report.html")
    assert "Käfer" in (folder / "report.html").read_text(encoding="utf-8")


def test_stages_of_the_run_are_known(folder):
    assert load_run(folder).stages == []
    (folder / "ce").mkdir()
    (folder / "ce" / "config.yaml").write_text("method: {name: ce}\n")
    assert load_run(folder).stages == [(folder / "ce").as_posix()]


def test_training_files_come_from_the_table_of_the_splits(folder):
    lines = ["path,label,split", *(f"{n}.png,cat,train" for n in range(40)), "x.png,dog,test"]
    (folder / "split.csv").write_text("\n".join(lines))
    run = load_run(folder)
    assert run.examples == {"cat": [f"{number}.png" for number in range(12)]}


def test_saved_metrics_serve_where_there_are_no_predictions(folder):
    (folder / "predictions.parquet").unlink()
    run = load_run(folder)
    assert run.metrics["accuracy"] == 0.25
    assert math.isnan(run.metrics["few"])
    assert math.isnan(run.metrics["ece"])


@pytest.mark.parametrize(
    "name",
    ["environment.json", "metrics.jsonl", "metrics.json", "predictions.parquet"],
)
def test_any_other_file_may_be_missing(folder, name):
    (folder / name).unlink()
    page = write_report([load_run(folder)], folder / "report.html")
    assert "n/a" in page.read_text(encoding="utf-8") or name == "metrics.json"


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run folder: it has no config\.yaml"):
        load_run(tmp_path)


def test_broken_files_are_named(folder):
    (folder / "metrics.jsonl").write_text('{"epoch": 0}\n{"epo')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2.*JSON"):
        load_run(folder)
    (folder / "metrics.jsonl").write_text("7\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1, must hold names and values"):
        load_run(folder)
    (folder / "metrics.jsonl").unlink()
    (folder / "config.yaml").write_text("- a\n- b\n")
    with pytest.raises(ValueError, match=r"config\.yaml must hold names and values, got list"):
        load_run(folder)
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"config\.yaml cannot be read"):
        load_run(folder)


def test_predictions_cut_short_are_named(folder):
    path = folder / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"predictions\.parquet is not a valid predictions file"):
        load_run(folder)


def test_predictions_that_do_not_fit_are_named(folder):
    path = folder / "predictions.parquet"
    write_predictions(path, np.zeros((2, 4)), [0, 1])
    with pytest.raises(ValueError, match="it names 3 classes, its logits have 4"):
        load_run(folder)
    write_predictions(path, [[0, 1, math.nan]], [0])
    with pytest.raises(ValueError, match="finite largest value in every row, got nan in row 0"):
        load_run(folder)
    pq.write_table(pa.table({"logits": [[1.0]], "label": [0]}), path)
    with pytest.raises(ValueError, match="no metadata of longtail"):
        load_run(folder)
    write_predictions(path, np.zeros((1, 3)), [0])
    pq.write_table(pq.read_table(path).drop_columns("logits"), path)
    with pytest.raises(
        ValueError, match=r"predictions\.parquet is not a valid predictions file: .*logits"
    ):
        load_run(folder)

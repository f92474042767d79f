import json
import math
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from longtail import ClassPrior
from longtail.data import DataConfig
from longtail.errors import InputError
from longtail.files import read_values, write_json
from longtail.models import ImageClassifier, create_backbone, create_head
from longtail.tasks import open_run, train
from longtail.training import Config, Predictions, Run, evaluate_predictions
from longtail.training.config import changed_settings


def predictions(logits: torch.Tensor | None = None) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    return Predictions(
        logits=torch.randn(6, 3, generator=generator) if logits is None else logits,
        labels=torch.tensor([0, 1, 2, 0, 1, 2]),
        index=torch.arange(6) + 10,
        paths=tuple(f"bild-{i}-ä.png" for i in range(6)),
        class_names=("Äpfel", "<b>", "c"),
        prior=ClassPrior([200, 50, 5]),
        expressed="source",
        name="toy",
    )


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    before = predictions()
    before.write(tmp_path / "p.parquet")
    after = Predictions.read(tmp_path / "p.parquet")
    for name in ("logits", "labels", "index"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    for name in ("paths", "class_names", "prior", "expressed", "name", "split"):
        assert getattr(after, name) == getattr(before, name)


def test_predictions_of_another_file(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    predictions().write(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"p\.parquet is not a valid predictions file"):
        Predictions.read(path)


def test_predictions_without_their_columns_or_of_other_classes(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    predictions().write(path)
    table = pq.read_table(path)
    for column in ("logits", "label", "path"):
        pq.write_table(table.drop_columns(column), path)
        with pytest.raises(ValueError, match=rf"not a valid predictions file .*{column}"):
            Predictions.read(path)
    about = json.loads(table.schema.metadata[b"longtail"])
    for changed, message in (
        (
            {**about, "class_names": ["a", "b"], "class_counts": [2, 1]},
            "it names 2 classes, its logits have 3",
        ),
        ({k: v for k, v in about.items() if k != "split"}, "its metadata has no split"),
    ):
        pq.write_table(table.replace_schema_metadata({"longtail": json.dumps(changed)}), path)
        with pytest.raises(ValueError, match=message):
            Predictions.read(path)


def test_another_spelling_of_a_path_is_no_other_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pics").mkdir()
    monkeypatch.chdir(tmp_path)
    before = {"data": {"source": "pics", "check": None}, "teacher": "pics", "lr": 0.1}
    run = Run.create(tmp_path / "run", before)
    several = Run.create(tmp_path / "several", {**before, "teacher": ["pics", "x"]})
    for path in ("pics/", str(tmp_path / "pics")):
        same = {"data": {"source": path, "check": "exists"}, "teacher": path, "lr": 0.1}
        assert changed_settings(run.config, same) == []
        assert changed_settings(several.config, {**same, "teacher": [path, "x"]}) == []
    other = {"data": {"source": "run", "check": None}, "teacher": "none", "lr": 0.1}
    assert len(changed_settings(run.config, other)) == 2
    assert len(changed_settings(several.config, {**other, "teacher": ["x", "pics"]})) == 2


def test_evaluated_under_another_prior() -> None:
    prior = ClassPrior([200, 50, 5])
    # Every logit is the log prior alone: the model knows nothing but the mix.
    given = predictions(prior.log_prior.float().expand(6, 3))
    assert evaluate_predictions(given)["accuracy"] == pytest.approx(2 / 6)
    assert evaluate_predictions(given)["many"] == 1.0
    uniform = evaluate_predictions(given, "uniform")
    assert uniform["nll"] == pytest.approx(torch.tensor(3.0).log().item(), abs=1e-5)
    assert evaluate_predictions(given, "source") == evaluate_predictions(given)


def test_a_mix_from_a_file_goes_by_the_names_of_its_classes(tmp_path: Path) -> None:
    logits = torch.tensor([[0.0, 0.1], [0.0, 0.1]])
    prior, labels = ClassPrior([1, 1]), torch.tensor([1, 1])
    predictions = Predictions(
        logits, labels, torch.arange(2), ("a", "b"), ("ant", "wren"), prior, "source", "birds"
    )
    (tmp_path / "mix.csv").write_text("wren,0.9\nant,0.1\n")
    assert evaluate_predictions(predictions, str(tmp_path / "mix.csv"))["accuracy"] == 1.0


def test_undefined_figures_are_null_in_the_file_and_nan_in_python(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {})
    with pytest.raises(ValueError, match="its training has not ended"):
        _ = run.metrics
    backbone = create_backbone("smallnet")
    head = create_head("linear", backbone.num_features, 3)
    run.save_model(ImageClassifier(backbone, head), card())
    metrics = {"few": math.nan, "accuracy": 0.5, "split": "test", "selection": "last epoch"}
    write_json(tmp_path / "metrics.json", metrics)
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    assert math.isnan(run.metrics.pop("few"))


def test_a_run_notes_where_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"epochs": 3, "precision": "bf16-mixed", "devices": 1, "nodes": 1}
    run = Run.create(tmp_path, settings)
    run.note_resumption(settings)
    assert len(run.starts) == 1  # nothing has changed
    run.note_resumption({**settings, "precision": "32-true"})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    for _ in range(2):
        run.note_resumption({**settings, "precision": "32-true"})
    assert len(run.starts) == 3
    assert run.over_starts(lambda start: start["precision"]) == "bf16-mixed, then 32-true"
    assert str(run.over_starts(lambda start: start["threads"])).endswith(", then 77")
    assert run.over_starts(lambda start: None) is None


@pytest.mark.parametrize(
    ("file", "content", "read"),
    [
        ("config.yaml", "a: [", lambda run: run.config),
        ("config.yaml", "- a", lambda run: run.config),
        ("metrics.jsonl", '{"epoch": 0}\n{"ep', lambda run: run.history),
        ("model.safetensors", "cut", lambda run: run.model_card()),
        ("environment.json", "{", lambda run: run.starts),
    ],
)
def test_a_broken_file_is_named(
    tmp_path: Path, file: str, content: str, read: Callable[[Run], object]
) -> None:
    run = Run.create(tmp_path, {"epochs": 3})
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / file))):
        read(run)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a run folder: it has no config\.yaml"):
        Run(tmp_path)


def test_the_log_of_an_epoch_replaces_what_a_killed_run_left(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"epochs": 3})
    for epoch, loss in ((0, 3.0), (1, 2.0), (2, 1.0), (1, 2.5)):
        run.log_epoch({"epoch": epoch, "loss": loss})
    assert run.history == [{"epoch": 0, "loss": 3.0}, {"epoch": 1, "loss": 2.5}]
    assert not run.finished
    with pytest.raises(ValueError, match="training has not ended"):
        run.predictions()
    with pytest.raises(ValueError, match="training has not ended"):
        run.model()


def card(**changes: object) -> dict[str, object]:
    """A card of a small model, with changes."""
    return {
        "data": "letters",
        "method": "ce",
        "backbone": "smallnet",
        "head": "linear",
        "image_size": 8,
        "margin": 1.0,
        "class_names": ["a", "b", "c"],
        "class_counts": [30, 20, 10],
        "expresses": "source",
        **changes,
    }


def test_the_model_comes_back_as_it_was(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"epochs": 3})
    backbone = create_backbone("smallnet")
    model = ImageClassifier(backbone, create_head("cosine", backbone.num_features, 3)).eval()
    about = card(head="cosine")
    run.save_model(model, about)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(run.model()(images), model(images))
    assert run.model_card() == about


def as_written_by_0_1_0(folder: Path, **more: object) -> None:
    """Gives a run folder the settings and the version of one that 0.1.0 wrote."""
    config = read_values(folder / "config.yaml")
    for name in ("task", "warmup_start"):
        config.pop(name, None)
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **more}))
    environment = read_values(folder / "environment.json")
    environment["packages"]["longtail"] = "0.1.0-test"
    write_json(folder / "environment.json", environment)


def test_a_run_folder_of_an_older_version(tmp_path: Path) -> None:
    config = Config(
        DataConfig("digits-lt"),
        {"name": "ce"},
        epochs=1,
        batch_size=64,
        precision="32-true",
        device="cpu",
    )
    run = train(config, tmp_path / "run")
    logits = run.predictions().logits
    as_written_by_0_1_0(run.folder)
    (run.folder / "metrics.json").unlink()
    resumed = train(config, run.folder, resume=True)
    assert torch.equal(resumed.predictions().logits, logits)
    assert open_run(run.folder).version == "0.1.0-test"
    (run.folder / "metrics.json").unlink()
    as_written_by_0_1_0(run.folder, colour="red")
    with pytest.raises(InputError, match=r"colour was 'red'.*created by longtail 0\.1\.0-test"):
        train(config, run.folder, resume=True)


def test_a_model_that_cannot_be_loaded_names_the_version_that_wrote_it(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"epochs": 3})
    model = ImageClassifier(create_backbone("smallnet"), torch.nn.Identity())
    about = card(head="cosine")
    run.save_model(model, about)
    this = re.escape(version("longtail"))
    with pytest.raises(InputError, match=rf"(?s)by longtail {this}.*head"):
        run.model()


def test_a_run_of_another_task_is_refused(tmp_path: Path) -> None:
    folder = Run.create(tmp_path, {"epochs": 3}).folder
    (folder / "config.yaml").write_text("task: segmentation\n")
    with pytest.raises(InputError, match="must hold a run of classification, got one of segment"):
        Run(folder)

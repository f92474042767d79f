"""Images as bytes in Parquet files and in `datasets`, as sources of data."""

import io
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import longtail
from longtail.data import DataConfig, check_source, from_huggingface, load, read_image

NAMES = ["wren", "owl"]
LABELS = [0] * 9 + [1] * 6


def picture(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (8, 8, 3), np.uint8)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "PNG")
    return file.getvalue()


def birds(begin: int = 0) -> datasets.Dataset:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    images = [Image.fromarray(picture(begin + i)) for i in range(len(LABELS))]
    return datasets.Dataset.from_dict({"image": images, "label": LABELS}, features=features)


def write(path: Path, **columns: object) -> str:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_a_dataset_is_a_source(tmp_path: Path) -> None:
    data = from_huggingface(datasets.DatasetDict({"train": birds(), "validation": birds(100)}))
    assert data.class_names == tuple(NAMES)
    assert data.train.labels.tolist() == LABELS
    assert data.test is None
    assert (data.val.images[2].permute(1, 2, 0).numpy() == picture(102)).all()


def test_rows_of_a_dataset_that_were_chosen_and_reordered(tmp_path: Path) -> None:
    chosen = birds().select([12, 3, 4, 11])
    data = from_huggingface(datasets.DatasetDict({"train": chosen, "test": chosen}))
    assert data.train.labels.tolist() == [1, 0, 0, 1]
    assert (data.train.images[0].permute(1, 2, 0).numpy() == picture(12)).all()


@pytest.mark.filterwarnings("ignore:.*images or fewer", "ignore:.*one class only")
def test_a_dataset_is_trained_on_as_its_saved_folder_and_its_parquet_file(tmp_path: Path) -> None:
    birds().save_to_disk(tmp_path / "saved")
    birds().to_parquet(tmp_path / "birds.parquet")
    accuracy, priors = [], []
    for number, data in enumerate((birds(), tmp_path / "saved", tmp_path / "birds.parquet")):
        run = longtail.train(
            data if number == 0 else str(data), "ce", epochs=2, batch_size=4, verbose=False,
            backbone="smallnet", pretrained=False, out=tmp_path / f"run{number}",
        )  # fmt: skip
        accuracy.append(run.metrics["nll"])
        priors.append(run.predictions().prior.counts.tolist())
    assert accuracy[1:] == accuracy[:1] * 2
    assert priors == [priors[0]] * 3


def test_a_dataset_is_advised_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("longtail.pictures.advise", lambda data, *_, **__: seen.append(data))
    longtail.advise(datasets.DatasetDict({"train": birds(), "test": birds(100)}))
    longtail.advise({"source": "digits-lt", "imbalance": 10})
    assert seen[0].class_names == tuple(NAMES)
    assert {*seen[0].splits} == {"train", "test"}
    assert seen[1].imbalance == 10


def test_files_of_a_folder_are_named_by_their_splits(tmp_path: Path) -> None:
    for name, begin in (("train-00000-of-00002", 0), ("train-00001-of-00002", 50), ("test", 100)):
        (tmp_path / "birds/data").mkdir(parents=True, exist_ok=True)
        birds(begin).to_parquet(tmp_path / f"birds/data/{name}-of.parquet")
    data = load(DataConfig(str(tmp_path / "birds")))
    assert (data.name, len(data.train), len(data.test)) == ("birds", 30, 15)
    assert (data.test.images[1].permute(1, 2, 0).numpy() == picture(101)).all()
    assert sorted([*data.train.index.tolist(), *data.test.index.tolist()]) == list(range(45))
    (tmp_path / "birds/data/more-0.parquet").write_bytes(
        (tmp_path / "birds/data/test-of.parquet").read_bytes()
    )
    with pytest.raises(ValueError, match=r"name no split \(1\): more-0.parquet"):
        load(DataConfig(str(tmp_path / "birds")))


def test_plain_bytes_with_a_split(tmp_path: Path) -> None:
    source = write(
        tmp_path / "b.parquet",
        jpg=[png(i) for i in range(4)],
        kind=["owl", " wren", "owl", "wren "],
        split=["train", "Training", "valid", "test"],
    )
    data = load(DataConfig(source, label_column="kind"))
    assert data.class_names == ("owl", "wren")
    assert data.val.index.tolist() == [2]
    assert (data.test.images[0].permute(1, 2, 0).numpy() == picture(3)).all()


def test_images_are_read_by_worker_processes(tmp_path: Path) -> None:
    """Those that are too large to be held in memory stay in the pack."""
    big = io.BytesIO()
    Image.new("RGB", (80, 70), (10, 200, 30)).save(big, "PNG")
    source = write(tmp_path / "b.parquet", image=[big.getvalue()] * 8, label=[0, 1] * 4)
    data = load(DataConfig(source))
    assert data.train.images is None
    assert read_image(data.train.paths[3], 4)[:, 0, 0].tolist() == [10, 200, 30]
    pack = {path.partition("#")[0] for path in data.train.paths}
    assert len(pack) == 1
    before = Path(*pack).stat().st_mtime_ns
    load(DataConfig(source))
    assert Path(*pack).stat().st_mtime_ns == before


def test_rows_that_name_files(tmp_path: Path, save_image) -> None:
    save_image(tmp_path / "a.png", 0)
    save_image(tmp_path / "b.png", 1)
    image = [{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    image += [{"bytes": png(i), "path": "elsewhere.png"} for i in range(2)]
    source = write(tmp_path / "x.parquet", image=image, label=["p", "q", "p", "q"])
    data = load(DataConfig(source))
    paths = [path for split in data.splits.values() for path in split.paths]
    assert str(tmp_path / "a.png") in paths
    assert sum(".pack#" in path for path in paths) == 2


def test_all_problems_at_once(tmp_path: Path) -> None:
    source = write(
        tmp_path / "b.parquet",
        image=[png(0), None, png(2), png(3)],
        label=["owl", "owl", None, "wren"],
        split=["train", "train", "train", "somewhere"],
    )
    with pytest.raises(ValueError, match="cannot be used") as caught:
        load(DataConfig(source))
    for wanted in (
        "without an image (1): b.parquet, row 1",
        "column 'label' (1): b.parquet, row 2",
        "as their split (1): b.parquet, row 3",
    ):
        assert wanted in str(caught.value)


def test_broken_images_are_named(tmp_path: Path) -> None:
    source = write(
        tmp_path / "b.parquet", image=[png(0), b"no image", png(2), png(3)], label=[0, 0, 1, 1]
    )
    with pytest.raises(ValueError, match="1 of 4 images cannot be read") as caught:
        load(DataConfig(source))
    assert "not an image file" in str(caught.value)
    findings = check_source(DataConfig(source), verbose=False)
    assert any("cannot be read (1)" in problem for problem in findings.problems)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"column of images as bytes.*'?label'?"):
        from_huggingface(datasets.Dataset.from_dict({"label": [0, 1]}))
    with pytest.raises(ValueError, match=r"no column 'label'.*image, kind"):
        from_huggingface(birds().rename_column("label", "kind"))
    with pytest.raises(ValueError, match=r"must be named as train, val, test, got \['odd'\]"):
        from_huggingface(datasets.DatasetDict({"train": birds(), "odd": birds()}))
    with pytest.raises(ValueError, match=r"datasets.Dataset or DatasetDict, got IterableDataset"):
        from_huggingface(birds().to_iterable_dataset())
    names = write(tmp_path / "f.parquet", image=[png(0)] * 2, label=[0.5, 1.5])
    with pytest.raises(ValueError, match="text or whole numbers, got double"):
        load(DataConfig(names))

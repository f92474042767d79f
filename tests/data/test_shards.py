import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtail.cli import main
from longtail.data import DataConfig, RandomCrops, Split, WorkerLoader, load, write_shards


@pytest.fixture
def loose(make_folder) -> Path:
    return make_folder({"ash": 9, "elm": 5, "yew": 2}, size=(90, 80))


def test_shards_hold_the_same_data_set(loose, tmp_path, capsys):
    out = tmp_path / "shards"
    assert main(["data", "shard", str(loose), "--out", str(out), "--megabytes", "1"]) == 0
    assert "2 shards written" in capsys.readouterr().out
    files, sharded = load(DataConfig(str(loose))), load(DataConfig(str(out)))
    assert (sharded.name, sharded.class_names) == (files.name, files.class_names)
    assert sharded.prior == files.prior
    assert sharded.image_size == files.image_size
    expected = {part: epoch(split) for part, split in files.splits.items()}
    shutil.rmtree(loose)
    assert {part: epoch(split) for part, split in sharded.splits.items()} == expected


def epoch(split: Split) -> list[tuple[list[int], ...]]:
    """Levels, classes and places of a shuffled epoch."""
    loader = WorkerLoader(split, 3, transform=RandomCrops(8), sampler="shuffle", workers=0)
    return [
        (batch.images.flatten().tolist(), batch.target.tolist(), batch.index.tolist())
        for batch in loader.epoch(3)
    ]


def test_a_shard_ends_with_the_image_that_fills_it(loose, tmp_path, monkeypatch):
    monkeypatch.setattr("longtail.data.shard_writer.MEGABYTE", 10_000)
    written = write_shards(DataConfig(str(loose)), tmp_path / "shards", megabytes=2)
    train = [path for path in written if path.name.startswith("train")]
    assert len(train) > 3
    for path in train:
        with tarfile.open(path) as tar:
            images = [member.size for member in tar if not member.name.endswith(".cls")]
        assert sum(images[:-1]) < 20_000
        assert sum(images) >= 20_000 or path == train[-1]


# It leaves a file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_readers_of_webdataset_take_them(loose, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    write_shards(DataConfig(str(loose)), tmp_path / "shards")
    data = load(DataConfig(str(tmp_path / "shards")))
    address = str(tmp_path / "shards" / "train-00000.tar")
    samples = list(webdataset.WebDataset(address, shardshuffle=False))
    assert len(samples) == len(data.train)
    for sample in samples:
        place = int(sample["__key__"])
        assert int(sample["cls"]) == int(data.train.labels[place])
    assert [sample["__key__"] for sample in samples] != sorted(s["__key__"] for s in samples)


def test_a_short_or_missing_shard_is_named(loose, tmp_path):
    out = tmp_path / "shards"
    write_shards(DataConfig(str(loose)), out)
    with (out / "train-00000.tar").open("r+b") as file:
        file.truncate(5000)
    (out / "test-00000.tar").unlink()
    with pytest.raises(ValueError, match=r"train-00000.tar has no byte") as caught:
        load(DataConfig(str(out)))
    assert "test-00000.tar" in str(caught.value)
    (out / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is not a valid index of shards"):
        load(DataConfig(str(out)))


def test_what_cannot_be_put_in_shards(loose, tmp_path):
    with pytest.raises(ValueError, match="digits-lt is in memory"):
        write_shards(DataConfig("digits-lt"), tmp_path)
    write_shards(DataConfig(str(loose)), tmp_path / "shards")
    with pytest.raises(ValueError, match="already has some"):
        write_shards(DataConfig(str(loose)), tmp_path / "shards")
    with pytest.raises(ValueError, match="in shards or one file already"):
        write_shards(DataConfig(str(tmp_path / "shards")), tmp_path / "again")


@pytest.fixture
def index(loose, tmp_path) -> Path:
    write_shards(DataConfig(str(loose)), tmp_path / "shards")
    return tmp_path / "shards" / "index.parquet"


def change(index: Path, column: str, values, *, drop: bool = False) -> None:
    table = pq.read_table(index)
    place = table.column_names.index(column)
    table = table.remove_column(place) if drop else table.set_column(place, column, values)
    pq.write_table(table, index)


@pytest.mark.parametrize("column", ["shard", "offset", "size", "label", "split", "index", "path"])
def test_an_index_without_a_column(index, column):
    change(index, column, None, drop=True)
    with pytest.raises(ValueError, match=rf"^\S+index\.parquet has no column {column}$"):
        load(DataConfig(str(index.parent)))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", "elm", "column label of .*index.parquet must hold whole numbers, got string"),
        ("label", None, "column label of .* must have no empty cell"),
        ("label", 7, r"labels outside of \[0, 3\) \(16\): 7 \(row 0\)"),
        ("label", -1, r"labels outside of \[0, 3\) \(16\): -1 \(row 0\)"),
        ("split", "holdout", r"splits other than train, val and test \(16\): holdout"),
        ("offset", -512, r"negative offsets \(16\): -512"),
        ("size", 0, r"sizes below 1 \(16\): 0"),
        ("shard", "../other.tar", r"shards outside of its folder \(1\): '\.\./other\.tar'"),
        ("shard", "/etc/passwd", r"shards outside of its folder \(1\): '/etc/passwd'"),
        ("shard", "gone.tar", r"missing or too short \(1\): gone\.tar has no byte"),
    ],
)
def test_an_index_with_invalid_values(index, column, value, message):
    change(index, column, pa.array([value] * 16))
    with pytest.raises(ValueError, match=message) as caught:
        load(DataConfig(str(index.parent)))
    assert "\n" not in str(caught.value)
    assert "shards" in str(caught.value)


@pytest.mark.parametrize(
    "about",
    [None, b"{", b"[]", b'{"name": 1, "class_names": ["a"]}', b'{"name": "a", "class_names": [1]}'],
)
def test_an_index_without_its_metadata(index, about):
    table = pq.read_table(index).replace_schema_metadata(about and {"longtail": about})
    pq.write_table(table, index)
    with pytest.raises(ValueError, match=r"index\.parquet is not a valid index of shards"):
        load(DataConfig(str(index.parent)))

import shutil
import tarfile
from pathlib import Path

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
    with pytest.raises(ValueError, match=r"train-00000.tar ends before byte") as caught:
        load(DataConfig(str(out)))
    assert "test-00000.tar" in str(caught.value)
    (out / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is no whole index of shards"):
        load(DataConfig(str(out)))


def test_what_cannot_be_put_in_shards(loose, tmp_path):
    with pytest.raises(ValueError, match="digits-lt is held in memory"):
        write_shards(DataConfig("digits-lt"), tmp_path)
    write_shards(DataConfig(str(loose)), tmp_path / "shards")
    with pytest.raises(ValueError, match="holds shards already; name another"):
        write_shards(DataConfig(str(loose)), tmp_path / "shards")
    with pytest.raises(ValueError, match="only loose files"):
        write_shards(DataConfig(str(tmp_path / "shards")), tmp_path / "again")

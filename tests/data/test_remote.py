"""Data at URLs: the same images as on the disk, whatever happens on the way."""

import netrc
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtail.cli import main
from longtail.data import (
    CentreCrop,
    DataConfig,
    Dataset,
    RandomCrops,
    UnreachableError,
    UnreadableImagesError,
    WorkerLoader,
    check_source,
    load,
    reading,
    remote,
    write_shards,
)
from longtail.data.paths import Part
from longtail.data.remote import RefusedError, fetch
from longtail.features import outputs

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def table(tmp_path: Path, save_image) -> Path:
    """A table of 24 images that are too large for the memory, in the folder that is served."""
    lines = ["path,label,split"]
    for n in range(24):
        save_image(tmp_path / "images" / f"owl #{n}.png", n, (90, 80))
        lines.append(f"images/owl #{n}.png,{'abc'[n % 3]},{'test' if n > 17 else 'train'}")
    (tmp_path / "birds.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "birds.csv"


@pytest.fixture
def shards(table: Path, tmp_path: Path) -> Path:
    write_shards(DataConfig(str(table)), tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def memory() -> Callable[[Path], str]:
    """Copies a file or folder into fsspec's file system in memory; returns its URL."""
    system = fsspec.filesystem("memory")
    system.store.clear()

    def copy(source: Path) -> str:
        for file in [source] if source.is_file() else source.rglob("*"):
            if file.is_file():
                name = file.relative_to(source.parent).as_posix()
                system.pipe_file(f"memory://bucket/{name}", file.read_bytes())
        return f"memory://bucket/{source.name}"

    return copy


def batches(data: Dataset, epoch: int = 0, first: int = 0, workers: int = 0) -> list[list]:
    """Levels, classes and indices of a shuffled epoch of random crops."""
    crops = RandomCrops(8)
    loader = WorkerLoader(data.train, 4, transform=crops, sampler="shuffle", workers=workers)
    return [
        [batch.images.tolist(), batch.target.tolist(), batch.index.tolist()]
        for batch in loader.epoch(epoch, first)
    ]


def test_a_table_on_a_server_is_the_table_on_the_disk(web, table, capsys):
    local, remote = load(DataConfig(str(table))), load(DataConfig(f"{web.url}/birds.csv"))
    assert remote.name == "birds"
    assert remote.train.paths[1] == f"{web.url}/images/owl%20%231.png"
    assert remote.image_size == local.image_size
    assert batches(remote) == batches(local)
    assert batches(remote, 1, first=2) == batches(local, 1)[2:]
    assert main(["data", "check", f"{web.url}/birds.csv"]) == 0
    assert "24 of 24 exist, 24 decoded" in capsys.readouterr().out


def test_what_was_read_once_is_not_asked_for_again(web, table):
    config = DataConfig(f"{web.url}/birds.csv")
    data = load(config)
    asked = [path for path, _ in web.requests]
    assert len(asked) == len(set(asked)) == 25
    batches(data)
    assert len(web.requests) == 25
    load(config)
    assert web.requests[25:] == [("/birds.csv", None)]  # it may have changed


@pytest.mark.parametrize("limit", ["0", "0.00005"])  # none, and two of the images
def test_a_cache_that_is_too_small_costs_time_alone(web, table, monkeypatch, limit, tmp_path):
    monkeypatch.setenv("LONGTAIL_CACHE_GB", limit)
    assert batches(load(DataConfig(f"{web.url}/birds.csv"))) == batches(
        load(DataConfig(str(table)))
    )
    kept = [path.stat().st_size for path in (tmp_path / "cache" / "remote").glob("*/*")]
    assert sum(kept) <= float(limit) * 1e9


def test_the_limit_must_be_a_number(web, table, monkeypatch):
    monkeypatch.setenv("LONGTAIL_CACHE_GB", "20GB")
    with pytest.raises(ValueError, match=r"LONGTAIL_CACHE_GB must be .* gigabytes.*, got '20GB'$"):
        load(DataConfig(f"{web.url}/birds.csv"))


@pytest.mark.parametrize("where", ["web", "memory"])
def test_shards_elsewhere_are_shuffled_as_those_on_the_disk(web, shards, memory, where):
    url = f"{web.url}/shards" if where == "web" else memory(shards)
    local, remote = load(DataConfig(str(shards))), load(DataConfig(url))
    assert (remote.name, remote.prior) == (local.name, local.prior)
    assert batches(remote, 3) == batches(local, 3)
    assert batches(remote, 3, first=2, workers=2) == batches(local, 3)[2:]
    longest = max(reading.read_bytes(path).__len__() for path in remote.train.paths)
    assert longest < (shards / "train-00000.tar").stat().st_size / 10


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_local_table_of_urls(web, table, memory, tmp_path, suffix):
    urls = [memory(path) for path in sorted((tmp_path / "images").iterdir())[:6]]
    columns = {"path": [*urls[:5], f" {web.url}/images/owl%20%237.png "], "label": list("ababab")}
    (tmp_path / "here").mkdir()
    source = tmp_path / "here" / f"t{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table(columns), source)
    else:
        rows = zip(*columns.values(), strict=True)
        source.write_text("path,label\n" + "\n".join(map(",".join, rows)) + "\n")
    data = load(DataConfig(str(source)))
    assert {*data.train.paths, *data.test.paths} == {
        *urls[:5],
        f"{web.url}/images/owl%20%237.png",
    }


def test_a_table_of_files_and_urls_is_compared(web, table, tmp_path):
    files = sorted((tmp_path / "images").iterdir())[:4]
    source = tmp_path / "mixed.csv"
    paths = [
        *map(str, files),
        f"{web.url}/images/owl%20%237.png",
        f"{web.url}/images/{files[0].name}",
    ]
    rows = [f"{path},{label}" for path, label in zip(paths, "ababab", strict=True)]
    source.write_text("\n".join(["path,label", *rows]) + "\n")
    found = check_source(DataConfig(str(source)))
    assert any(files[0].name in text for text in found.problems + found.warnings)


def test_parquet_files_of_images_elsewhere(memory, tmp_path, table):
    contents = [path.read_bytes() for path in sorted((tmp_path / "images").iterdir())]
    columns = {"image": [{"bytes": c, "path": None} for c in contents], "label": list("abc") * 8}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    local = load(DataConfig(str(tmp_path / "train.parquet")))
    assert batches(load(DataConfig(memory(tmp_path / "train.parquet")))) == batches(local)


def test_lists_and_their_images_elsewhere(web, table, tmp_path):
    lists = {"train": (0, [0, 1, 2, 0, 1]), "val": (5, [0]), "test": (6, [2])}
    for split, (first, labels) in lists.items():
        lines = [f"images/owl #{n}.png {label}" for n, label in enumerate(labels, first)]
        (tmp_path / f"Places_LT_{split}.txt").write_text("\n".join(lines) + "\n")
    local = load(DataConfig("places-lt", root=str(tmp_path), image_size=72))
    remote = load(DataConfig("places-lt", root=web.url, image_size=72))
    assert remote.class_names == ("0", "1", "2")
    assert batches(remote) == batches(local)
    mixed = load(DataConfig("places-lt", root=web.url, lists=str(tmp_path), image_size=72))
    assert mixed.train.paths == remote.train.paths
    (tmp_path / "images" / "owl #1.png").unlink()
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UnreadableImagesError, match=r"1 of 7 .*\n.*owl%20%231.png: there is no"):
        load(DataConfig("places-lt", root=web.url, image_size=72))


def test_a_table_elsewhere_packed_into_shards_here(web, table, shards, tmp_path):
    write_shards(DataConfig(f"{web.url}/birds.csv"), tmp_path / "packed")
    for file in shards.glob("*.tar"):
        assert file.read_bytes() == (tmp_path / "packed" / file.name).read_bytes()


# What a server may do


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "reset", "silent"])
@pytest.mark.parametrize("part", [(0, None), (5, 25)])
def test_faults_that_pass_are_waited_for(web, table, fault, part):
    content = table.read_bytes()
    web.faults["/birds.csv"] = [fault, fault]
    found = fetch([Part(f"{web.url}/birds.csv", *part)])
    assert found == [content[part[0] : part[1]]]
    assert len(web.requests) >= 3  # aiohttp repeats a request on a connection that was closed


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_a_server_refuses_is_not_asked_for_again(web, table, status):
    web.faults["/birds.csv"] = [status]
    (answer,) = fetch([Part(f"{web.url}/birds.csv")])
    assert isinstance(answer, RefusedError)
    expected = "there is no such file" if status == 404 else f"{status} "
    assert str(answer).startswith(f"{web.url}/birds.csv: {expected}")
    assert len(web.requests) == 1


def test_a_server_that_never_answers_is_named_in_one_line(web, table):
    web.faults["/birds.csv"] = [503] * 100
    with pytest.raises(UnreachableError) as caught:
        load(DataConfig(f"{web.url}/birds.csv"))
    assert str(caught.value) == (
        f"{web.url}/birds.csv cannot be read: 503 Service Unavailable, in each of 7 attempts"
    )
    assert len(web.requests) == 7


def test_other_files_of_a_request_are_not_asked_for_again(web, table):
    web.faults["/birds.csv"] = [503]
    parts = [
        Part(f"{web.url}/birds.csv"),
        Part(f"{web.url}/gone"),
        Part(f"{web.url}/birds.csv", 0, 4),
    ]
    found = fetch(parts)
    assert (found[0], found[2]) == (table.read_bytes(), b"path")
    assert isinstance(found[1], RefusedError)
    assert len(web.requests) == 4


def test_a_part_that_stays_short_and_a_server_without_parts(web, table):
    url, size = f"{web.url}/birds.csv", table.stat().st_size
    (short,) = fetch([Part(url, size - 2, size + 7)])
    assert str(short) == f"{url}: it is too short: 2 of 9 bytes came"
    web.ranges = False
    assert fetch([Part(url, 0, 4)]) == [b"path"]
    (whole,) = fetch([Part(url, 5, 10)])
    assert str(whole) == f"{url}: the server sends whole files only, not parts of them"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["table", "shards"])
def test_no_image_is_lost_to_faults(web, table, shards, kind, workers):
    local, url = (
        (table, f"{web.url}/birds.csv") if kind == "table" else (shards, f"{web.url}/shards")
    )
    data = load(DataConfig(url))
    shutil.rmtree(reading._copies().folder)
    faults = [503, "cut", "reset", 500, "short"]
    if kind == "table":
        for number, path in enumerate(sorted((table.parent / "images").iterdir())):
            web.faults[f"/images/{path.name}"] = [faults[number % 5]]
    else:
        web.faults["/shards/train-00000.tar"] = faults * 4
    assert batches(data, workers=workers) == batches(load(DataConfig(str(local))))


def test_a_picture_that_was_broken_and_is_replaced_is_read_again(web, table, tmp_path):
    file = tmp_path / "images" / "owl #3.png"
    good = file.read_bytes()
    file.write_bytes(good[:100])
    with pytest.raises(UnreadableImagesError, match=r"1 of 24 .*\n.*owl%20%233.png: "):
        load(DataConfig(f"{web.url}/birds.csv"))
    file.write_bytes(good)
    load(DataConfig(f"{web.url}/birds.csv"))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_ends_at_once_where_a_server_is_lost(web, table, workers):
    data = load(DataConfig(f"{web.url}/birds.csv"))
    shutil.rmtree(reading._copies().folder)
    for path in (table.parent / "images").iterdir():
        web.faults[f"/images/{path.name}"] = [503] * 100
    with pytest.raises(UnreachableError, match=r"^http://\S+ cannot be read: 503 [^\n]*$"):
        batches(data, workers=workers)


def test_the_next_batch_is_downloaded_while_one_is_decoded(web, table):
    data = load(DataConfig(f"{web.url}/birds.csv"))
    shutil.rmtree(reading._copies().folder)
    del web.requests[:]
    loader = WorkerLoader(data.train, 4, transform=RandomCrops(8), sampler="sequential", workers=0)
    next(loader.epoch(0))
    loader._loader.dataset._download[1].result()
    names = [unquote(urlsplit(path).path) for path in data.train.paths[:8]]
    assert sorted(path for path, _ in web.requests) == sorted(names)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_is_lost_in_the_next_batch_is_not_asked_again(web, table, workers):
    data = load(DataConfig(f"{web.url}/birds.csv"))
    shutil.rmtree(reading._copies().folder)
    del web.requests[:]
    lost = unquote(urlsplit(data.train.paths[14]).path)  # batch 3, which follows 1 with 2 workers
    web.faults[lost] = [503] * 100
    crop = CentreCrop(8)
    loader = WorkerLoader(data.train, 4, transform=crop, sampler="sequential", workers=workers)
    epoch = loader.epoch(0)
    for _ in range(3):
        next(epoch)
    with pytest.raises(UnreachableError, match="503 Service Unavailable, in each of 7 attempts"):
        next(epoch)
    assert [path for path, _ in web.requests].count(lost) == 7


def test_features_of_images_elsewhere(web, table):
    class Mean:
        concurrent, batch_pixels = True, 1 << 20

        def __call__(self, images: np.ndarray) -> np.ndarray:
            return images.mean((2, 3))

    local, remote = load(DataConfig(str(table))), load(DataConfig(f"{web.url}/birds.csv"))
    shutil.rmtree(reading._copies().folder)
    for number in (2, 5):
        web.faults[f"/images/owl #{number}.png"] = [503, "short"]
    crop = CentreCrop(8)
    found, expected = (
        np.concatenate([chunk.outputs for chunk in outputs(Mean(), data.train, crop, threads=2)])
        for data in (remote, local)
    )
    np.testing.assert_array_equal(found, expected)


def test_proxies_and_passwords_are_looked_up_only_where_there_are_some(
    web, table, monkeypatch, tmp_path
):
    looked_up = []

    class Counted(netrc.netrc):
        def __init__(self, *args: object) -> None:
            looked_up.append(args)
            super().__init__(*args)

    monkeypatch.setattr(netrc, "netrc", Counted)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert fetch([Part(f"{web.url}/birds.csv")]) == [table.read_bytes()]
    assert looked_up == []
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login owl password hoot\n")
    remote._file_system.cache_clear()
    fetch([Part(f"{web.url}/birds.csv")])
    assert web.authorizations == [None, "Basic b3dsOmhvb3Q="]
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("http_proxy", web.url)
    remote._file_system.cache_clear()
    fetch([Part("http://birds.invalid/birds.csv")])
    assert web.requests[-1] == ("http://birds.invalid/birds.csv", None)


# Whom to trust


def test_a_table_elsewhere_names_no_file_here(web, table, tmp_path):
    secret = tmp_path / "images" / "owl #0.png"
    (tmp_path / "served").mkdir()
    source = tmp_path / "served" / "t.csv"
    paths = [str(secret), "../../../../../images/owl #1.png", f"file://{secret}", "a.png"]
    source.write_text("path,label\n" + "".join(f"{p},{'ab'[n % 2]}\n" for n, p in enumerate(paths)))
    with pytest.raises(ValueError, match="3 of 4 images cannot be read") as caught:
        load(DataConfig(f"{web.url}/served/t.csv", image_size=72))
    assert str(caught.value).count(f"\n  {web.url}/served/") == 3
    config = DataConfig(f"{web.url}/served/t.csv", root=str(tmp_path / "served"))
    with pytest.raises(ValueError, match=r"paths outside of root \(2\): .*line 2\), .*line 3\)$"):
        load(config)


@pytest.mark.parametrize("url", ["file:///etc/a.png", "ftp://a.org/a.png", "zip://a.png::b.zip"])
def test_other_urls_are_not_followed(table, url):
    with table.open("a") as file:
        file.write(f"{url},a,train\n")
    with pytest.raises(
        ValueError, match=r"that do not exist \(1\): .*line 26\).*look like unsupported URLs"
    ):
        load(DataConfig(str(table)))


@pytest.mark.parametrize(
    "name",
    ["..", "../a.tar", "a/b.tar", "https://a.org/b.tar", "%2e%2e%2fa.tar", "a?b.tar", "a#b.tar"],
)
def test_an_index_elsewhere_stays_in_its_folder(web, shards, name):
    table = pq.read_table(shards / "index.parquet")
    at = table.column_names.index("shard")
    table = table.set_column(at, "shard", pa.array([name] * len(table)))
    pq.write_table(table, shards / "index.parquet")
    with pytest.raises(ValueError, match="shards outside of its folder") as caught:
        load(DataConfig(f"{web.url}/shards"))
    assert "\n" not in str(caught.value)
    assert [path for path, _ in web.requests] == ["/shards/index.parquet"]


# What is said


def test_a_shard_elsewhere_that_is_short(web, shards):
    with (shards / "train-00000.tar").open("r+b") as file:
        file.truncate(5000)
    (shards / "test-00000.tar").unlink()
    with pytest.raises(
        ValueError, match=r"missing or too short \(2\): http.*no such file, http.*: 416"
    ):
        load(DataConfig(f"{web.url}/shards"))


def test_shards_that_are_larger_than_the_cache(web, shards, monkeypatch):
    monkeypatch.setenv("LONGTAIL_CACHE_GB", "0.0001")
    with pytest.warns(UserWarning, match=r"GB of images.* take 0\.0001 GB.*LONGTAIL_CACHE_GB"):
        load(DataConfig(f"{web.url}/shards"))


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet", "gone"])
def test_what_is_not_there_is_named_in_one_line(web, capsys, name):
    assert main(["data", "check", f"{web.url}/{name}"]) == 2
    error = capsys.readouterr().err
    assert error.count(f"{web.url}/{name}") == 1
    assert "there is no such file" in error
    assert error.count("\n") == 1


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ValueError, match=r"^s3:// needs the package s3fs: .*longtail\[s3\]'$"):
        load(DataConfig("s3://bucket/birds.csv"))

"""The cache of remote files: whole copies, of bounded size, for many processes."""

import multiprocessing
import os
from pathlib import Path

import pytest

from longtail.data.copies import DIGEST, Copies

KB = 1000


def sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob("*/*")]


def test_a_copy_is_kept_for_the_next_program(tmp_path):
    Copies(tmp_path, 10 * KB).put("a", b"owl")
    copies = Copies(tmp_path, 10 * KB)
    assert copies.has("a")
    assert (copies.get("a"), copies.get("b")) == (b"owl", None)
    assert copies.drop("a")
    assert not copies.drop("a")
    assert copies.get("a") is None


def test_the_copies_that_were_not_used_for_longest_make_room(tmp_path):
    copies = Copies(tmp_path, 10 * KB)
    for number in range(9):
        copies.put(str(number), bytes(KB))
    for number in range(9):
        os.utime(copies._path(str(number)), (number, number))
    assert copies.get("0") == bytes(KB)  # it is used: now the newest
    for number in range(9, 12):
        copies.put(str(number), bytes(KB))
        assert sum(sizes(tmp_path)) <= 10 * KB
    there = {number for number in range(12) if copies.has(str(number))}
    assert {0, 9, 10, 11} <= there
    assert not {1, 2} & there


def test_a_smaller_limit_removes_copies_and_a_larger_file_is_not_kept(tmp_path):
    copies = Copies(tmp_path, 10 * KB)
    for number in range(9):
        copies.put(str(number), bytes(KB))
    smaller = Copies(tmp_path, 3 * KB)
    smaller.put("new", bytes(KB))
    assert smaller.has("new")
    assert sum(sizes(tmp_path)) <= 3 * KB
    before = sizes(tmp_path)
    smaller.put("large", bytes(3 * KB))
    assert sizes(tmp_path) == before
    none = Copies(tmp_path / "none", 0)
    none.put("a", b"")
    assert not none.enabled
    assert not (tmp_path / "none").exists()


def test_a_copy_that_another_process_removes_before_it_is_complete(tmp_path, monkeypatch):
    replace = Path.replace

    def removed(part, path):
        part.unlink()
        return replace(part, path)

    copies = Copies(tmp_path, 10 * KB)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", removed)
        copies.put("a", b"owl")
    assert copies.get("a") is None
    copies.put("a", b"owl")  # the cache is still in use
    assert copies.get("a") == b"owl"


@pytest.mark.parametrize("damage", [b"", b"x" * (DIGEST - 1), b"y" * 50])
def test_a_damaged_copy_counts_as_absent(tmp_path, damage):
    copies = Copies(tmp_path, 10 * KB)
    copies.put("a", b"an image")
    copies._path("a").write_bytes(damage)
    assert copies.get("a") is None
    copies.put("a", b"an image")
    assert copies.get("a") == b"an image"


def test_what_a_killed_writer_left_is_removed_with_the_old(tmp_path):
    copies = Copies(tmp_path, 10 * KB)
    copies.put("a", bytes(KB))
    left = copies._path("a").with_name("left.1.2")
    left.write_bytes(bytes(8 * KB))
    os.utime(left, (1, 1))
    (tmp_path / "bytes").write_bytes(b"")  # killed before it wrote the number
    copies.put("b", bytes(2 * KB))
    assert not left.exists()
    assert copies.has("a")


def _write(folder: Path, writer: int) -> None:
    copies = Copies(folder, 50 * KB)
    for number in range(100):
        copies.put(f"{writer} {number % 40}", bytes([writer]) * KB)
        found = copies.get(f"{writer} {number % 40}")
        assert found in (None, bytes([writer]) * KB)


def test_processes_write_together(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert 20 * KB < sum(sizes(tmp_path)) <= 50 * KB
    assert set(sizes(tmp_path)) == {KB + DIGEST}


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    copies = Copies(tmp_path / "file", 10 * KB)
    with pytest.warns(UserWarning, match="are not kept in .*LONGTAIL_CACHE names another folder"):
        copies.put("a", b"owl")
    copies.put("a", b"owl")
    assert not copies.enabled
    assert copies.get("a") is None

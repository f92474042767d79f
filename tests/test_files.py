"""Files of text: what other programs make of UTF-8, and what is no UTF-8."""

import os
from pathlib import Path

import pytest

from longtail.files import read_records, read_text, read_values, write_text
from longtail.segmentation.masks import read_class_names
from longtail.shift import resolve_prior


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("road\nSträucher\n", encoding="utf-8-sig")
    assert read_class_names(names) == ("road", "Sträucher")
    mix = tmp_path / "mix.csv"
    mix.write_text("ant,0.25\nwren,0.75\n", encoding="utf-8-sig")
    assert resolve_prior(str(mix), None, 2, ("wren", "ant")).tolist() == [0.75, 0.25]
    values = tmp_path / "a.json"
    values.write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_values(values) == {"a": 1}


@pytest.mark.parametrize("read", [read_text, read_values, read_records, read_class_names])
def test_a_file_that_is_no_utf_8_is_named(read: object, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes("Sträucher".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.json must be UTF-8 text: .*0xe4"):
        read(path)  # type: ignore[operator]


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000, "{"])
def test_a_line_that_cannot_be_parsed_is_named(value: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": ' + value + "}\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is not valid JSON"):
        read_records(path)


def test_a_link_stays_one_and_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "real.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(pipe, "through it")
        assert os.read(reader, 100) == b"through it"
    finally:
        os.close(reader)
    assert pipe.is_fifo()

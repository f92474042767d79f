"""Tables as people have them: spreadsheets, other encodings, other systems' paths."""

import codecs
import gzip
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtail.data import DataConfig, load


@pytest.fixture
def images(tmp_path: Path, save_image) -> Path:
    for n in range(8):
        save_image(tmp_path / "images" / f"{n}.png", n)
    return tmp_path


def rows(separator: str = ",", labels: tuple[str, str] = ("cat", "dog"), first: int = 0) -> str:
    cells = [(f"images/{n}.png", labels[n % 2], "test" if n > 5 else "train") for n in range(8)]
    return "".join(separator.join(row) + "\n" for row in cells[first:])


def read(folder: Path, content: str | bytes, **settings):
    content = content.encode() if isinstance(content, str) else content
    (folder / "t.csv").write_bytes(content)
    return load(DataConfig(str(folder / "t.csv"), **settings))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_recognised(images, separator):
    data = read(images, separator.join(("path", "label", "split")) + "\n" + rows(separator))
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (6, 2)


def test_a_tsv_file_is_a_table(images):
    (images / "t.tsv").write_text("path\tlabel\tsplit\n" + rows("\t"))
    assert len(load(DataConfig(str(images / "t.tsv"))).train) == 6


def test_the_separator_that_excel_names(images):
    data = read(images, "sep=;\npath;label;split\n" + rows(";"))
    assert data.class_names == ("cat", "dog")
    assert read(images, '"sep=^"\npath^label^split\n' + rows("^")).class_names == ("cat", "dog")
    with pytest.raises(ValueError, match=r"rows without a label \(1\): line 10"):
        read(images, "sep=;\npath;label;split\n" + rows(";").replace(";dog;test", ";;test"))


def test_a_separator_inside_a_column_of_text_does_not_mislead(images):
    text = "path,label,note; with; many; semicolons\n" + rows()
    assert read(images, text).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_are_recognised(images, encoding, newline):
    text = ("path,label,split\n" + rows(labels=("ça", "été"))).replace("\n", newline)
    data = read(images, text.encode(encoding))
    assert data.class_names == ("ça", "été")
    assert len(data.train) == 6


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_windows_encoding_is_read_with_a_warning_that_names_the_line(images, encoding):
    text = "path,label,split\n" + rows(labels=("cat", "été"))
    with pytest.warns(UserWarning, match=r"t\.csv .* Windows-1252.* \(4\): 'été' in line 3"):
        data = read(images, text.encode(encoding))
    assert data.class_names == ("cat", "été")


def test_an_encoding_that_is_neither_is_named_with_its_line(images):
    content = b"path,label\nimages/0.png,a\nimages/1.png,\x81\x8d\n"
    with pytest.raises(ValueError, match=r"t\.csv, line 3: column 'label' is neither UTF-8 nor"):
        read(images, content)


def test_broken_utf_16_is_named_with_its_line(images):
    content = ("path,label,split\n" + rows()).encode("utf-16")
    with pytest.raises(ValueError, match=r"line 10 is not valid UTF-16 \(.*\)\. Save it as UTF-8"):
        read(images, content + b"\x00\xd8\x0a\x00")


def test_a_packed_table_is_named(images):
    with pytest.raises(ValueError, match=r"t\.csv cannot be read as a table: it is a gzip file"):
        read(images, gzip.compress(b"path,label"))


@pytest.mark.parametrize("cut", range(3))
def test_a_large_table_may_be_cut_inside_a_letter(images, cut):
    """Its first part, which tells the separator, ends in one of three bytes of a letter."""
    text = "path,label,split,注\n" + rows().replace("\n", f",{'y' * cut}{'鯨' * 10_000}\n")
    data = read(images, text.encode("utf-8-sig"))
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize("separator", [",", ";"])
def test_quoted_names_after_a_blank(images, separator):
    header = f'"path"{separator} "label"{separator} "split"\n'
    assert read(images, header + rows(separator)).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("Path,Label,split", r"; did you mean --data.path-column 'Path' .* 'Label'\?"),
        ("path, LABEL ,split", r"no label_column 'label'; .* mean --data.label-column 'LABEL'\?"),
        ("images/0.png,cat,train", "the first line looks like a row, but must be a header"),
    ],
)
def test_what_a_header_looks_like(images, header, hint):
    with pytest.raises(ValueError, match=hint):
        read(images, header + "\n" + rows())


def test_a_column_that_is_not_needed_may_have_any_encoding(images):
    lines = ["path,label,note,split", *(r.replace(",t", ",x\x81,t") for r in rows().splitlines())]
    data = read(images, "\n".join(lines).encode("latin-1"))
    assert data.class_names == ("cat", "dog")
    assert len(data.train) == 6


def test_lines_are_counted_as_in_an_editor(images):
    text = (
        "path,label,note\n\n"
        'images/0.png,a,"two\nlines"\n'
        "\n   \n"
        "images/1.png,,x\n"
        'images/2.png,b,"three\r\nmore\nlines"\n'
        "images/3.png,,x\n"
    )
    with pytest.raises(ValueError, match=r"rows without a label \(2\): line 7, line 11"):
        read(images, text)


def test_uneven_rows_are_named_with_their_lines(images):
    text = 'path,label\nimages/0.png,"a\nb"\nimages/1.png\nimages/2.png,b,c\n'
    with pytest.raises(ValueError, match=r"2 columns .* \(2\): line 4 has 1, line 5 has 3"):
        read(images, text)


def test_blanks_after_the_separator_are_ignored(images):
    data = read(images, "path, label, split\n" + rows(", "))
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (6, 2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_blanks_before_a_quote_are_ignored(images, encoding):
    text = rows(", ", labels=('"été, ""x"""', '"a"')).replace('png, "a"', 'png, "a\nb"')
    data = read(images, ("path, label, split\n" + text).encode(encoding))
    assert data.class_names == ("a\nb", 'été, "x"')
    assert (len(data.train), len(data.test)) == (6, 2)


def test_a_quote_that_is_not_closed_is_named_with_its_line(images):
    text = "path,label,split\n" + rows() + '"images/0.png,cat,train\n'
    with pytest.raises(ValueError, match=r"\(1\): line 10 has 1"):
        read(images, text)
    with pytest.raises(ValueError, match=r"line 10: field larger .*; is a quote not closed"):
        read(images, text + "images/0.png,cat,train\n" * 100_000)


@pytest.mark.parametrize("prefix", [" ", "\u00a0", "./", ".\\"])
def test_paths_with_blanks_or_a_dot(images, prefix):
    text = "path,label,split\n" + "".join(prefix + line + "\n" for line in rows().splitlines())
    assert read(images, text).train.paths[0] == str(images / "images" / "0.png")


def test_backslashes_are_separators_where_there_is_no_such_file(images, save_image):
    save_image(images / "images\\0.png", 99)
    data = read(images, "path,label,split\n" + rows().replace("/", "\\"))
    assert data.train.paths[0] == str(images / "images\\0.png")
    assert data.train.paths[1] == str(images / "images" / "1.png")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("C:\\Users\\me\\0.png", "look like Windows paths"),
        ("ftp://example.org/0.png", "look like unsupported URLs"),
        ("images/0", "similar file, '0.png'"),
        ("images/0.PNG", "similar file, '0.png'"),
        ("pictures/0.png", "there is no folder .*pictures"),
    ],
)
def test_a_missing_file_says_what_its_path_looks_like(images, path, hint):
    with pytest.raises(ValueError, match=rf"files that do not exist \(1\): .*line 10\); .*{hint}"):
        read(images, "path,label,split\n" + rows() + f"{path},cat,train\n")


def test_names_that_differ_in_unicode_normalization(images, save_image):
    save_image(images / "images" / "e\u0301.png")  # as macOS writes it
    with pytest.raises(ValueError, match=r"there is a similar file"):
        read(images, "path,label,split\n" + rows() + "images/\u00e9.png,cat,train\n")


@pytest.mark.parametrize("blank", ["", " ", "\u00a0", "\t "])
def test_a_label_of_blanks_is_missing(images, blank):
    text = "path,label,split\n" + rows() + f'images/0.png,"{blank}",train\n'
    with pytest.raises(ValueError, match=r"rows without a label \(1\): line 10"):
        read(images, text)


@pytest.mark.parametrize("missing", [None, np.nan, " "])
def test_missing_labels_in_parquet(images, missing):
    labels = ["a", missing, "b"] if missing == " " or missing is None else [1.0, missing, 2.0]
    table = pa.table({"path": [f"images/{n}.png" for n in range(3)], "label": labels})
    pq.write_table(table, images / "t.parquet")
    with pytest.raises(ValueError, match=r"rows without a label \(1\): row 1"):
        load(DataConfig(str(images / "t.parquet")))


def test_whole_numbers_that_pandas_made_floats(images):
    frame = pd.DataFrame({"path": [f"images/{n}.png" for n in range(8)], "label": [10.0, 9.0] * 4})
    frame.to_parquet(images / "t.parquet")
    assert load(DataConfig(str(images / "t.parquet"))).class_names == ("9", "10")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1.0, np.inf], ("1", "inf")),
        ([2.0, 1e20], ("1e+20", "2")),
        ([Decimal("10.0"), Decimal("9.0")], ("9", "10")),
        (np.array([10, 9], np.float16), ("9", "10")),
    ],
)
def test_numbers_of_other_types_in_parquet(images, labels, names):
    table = pa.table({"path": [f"images/{n}.png" for n in range(8)], "label": [*labels] * 4})
    pq.write_table(table, images / "t.parquet")
    assert load(DataConfig(str(images / "t.parquet"))).class_names == names


def test_categories_of_pandas(images):
    frame = pd.DataFrame({"path": [f"images/{n}.png" for n in range(8)], "label": ["a", "b"] * 4})
    frame["label"] = frame["label"].astype("category")
    frame.to_parquet(images / "t.parquet")
    assert load(DataConfig(str(images / "t.parquet"))).class_names == ("a", "b")


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "VALID"), (" train", "testing")])
def test_names_of_splits(images, names):
    train, held_out = names
    text = rows().replace(",train", f",{train}").replace(",test", f",{held_out}")
    data = read(images, "path,label,split\n" + text)
    assert len(data.train) == 6
    assert len(data.splits) == 2


def test_odd_file_names_are_found_and_shown_in_one_line(images, save_image):
    names = ['a "b", c.png', "-rf.png", "new\nline.png", " lead.png", "semi;colon.png"]
    for n, name in enumerate(names):
        save_image(images / name, n)
    frame = pd.DataFrame({"path": names, "label": ["a", "b", "a", "b", "a"]})
    frame.to_csv(images / "t.csv", index=False)
    data = load(DataConfig(str(images / "t.csv"), check="exists"))
    found = sorted(path for split in data.splits.values() for path in split.paths)
    assert found == sorted(str(images / name) for name in names)
    (images / "new\nline.png").unlink()
    with pytest.raises(ValueError, match=r"do not exist \(1\): '.*new\\nline\.png \(t\.csv, line"):
        load(DataConfig(str(images / "t.csv"), check="exists"))


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match="save the sheet as CSV"):
        load(DataConfig(str(tmp_path / "t.xlsx")))
    (tmp_path / "t.csv").write_bytes(codecs.BOM_UTF8)
    with pytest.raises(ValueError, match=r"t\.csv cannot be read as a table: it has no header"):
        load(DataConfig(str(tmp_path / "t.csv")))

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtail.data import DataConfig, load


@pytest.fixture
def images(tmp_path: Path, save_image) -> Path:
    for n in range(12):
        save_image(tmp_path / "images" / f"{n}.png", n)
    return tmp_path


def write(folder: Path, *lines: str, header: str = "path,label,split") -> str:
    (folder / "birds.csv").write_text("\n".join([header, *lines]) + "\n")
    return str(folder / "birds.csv")


def row(n: int, label: str, split: str = "train") -> str:
    return f"images/{n}.png,{label},{split}"


def test_csv(images):
    source = write(
        images, row(0, "wren"), row(1, "owl"), row(2, "wren", "val"), row(3, "owl", "test")
    )
    data = load(DataConfig(source))
    assert data.name == "birds"
    assert data.class_names == ("owl", "wren")
    assert data.train.labels.tolist() == [1, 0]
    assert data.val.index.tolist() == [2]
    assert data.test.paths == (str(images / "images" / "3.png"),)


def test_columns_root_and_made_split(images, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    lines = [f"x,{n}.png,{n % 2}" for n in range(12)]
    source = write(tmp_path / "elsewhere", *lines, header="note,file,kind")
    data = load(
        DataConfig(source, root=str(images / "images"), path_column="file", label_column="kind")
    )
    assert len(data.train) == 10
    assert len(data.test) == 2


def test_a_split_column_is_found_in_any_case(images):
    rows = [row(n, "ab"[n % 2], "Test" if n > 7 else "train") for n in range(12)]
    data = load(DataConfig(write(images, *rows, header="path,label,Split")))
    assert (len(data.train), len(data.test)) == (8, 4)
    pictures = [(images / "images" / f"{n}.png").read_bytes() for n in range(4)]
    table = pa.table({"image": pictures, "label": list("abab")})
    table = table.append_column("Split", pa.array(["train", "train", "test", "test"]))
    pq.write_table(table, images / "t.parquet")
    assert len(load(DataConfig(str(images / "t.parquet"))).test) == 2
    for source in (write(images, *rows, header="path,note,Split"), str(images / "t.parquet")):
        assert load(DataConfig(source, label_column="Split", test_fraction=0.5)).num_classes == 2


def test_a_table_with_training_rows_alone_is_split(images):
    data = load(DataConfig(write(images, *(row(n, "ab"[n % 2]) for n in range(12)))))
    assert len(data.test) == 2


def test_parquet_and_whole_numbers_in_order(images):
    table = {"path": [f"images/{n}.png" for n in range(12)], "label": [10, 9, 100] * 4}
    pq.write_table(pa.table(table), images / "t.parquet")
    data = load(DataConfig(str(images / "t.parquet")))
    assert data.class_names == ("9", "10", "100")


def test_text_that_looks_like_numbers_stays_text(images):
    data = load(DataConfig(write(images, *(row(n, ["007", "7", "NA"][n % 3]) for n in range(12)))))
    assert data.class_names == ("007", "7", "NA")


def test_all_faults_of_the_rows_are_named_at_once(images):
    source = write(
        images,
        row(0, "a"),
        row(1, "b"),
        row(77, "a"),
        row(2, "b"),
        "images/../images/0.png,b,train",
        row(3, "wolf", "test"),
        row(78, "a", "test"),
    )
    with pytest.raises(ValueError, match="birds cannot be used") as caught:
        load(DataConfig(source))
    text = str(caught.value)
    assert "files that do not exist (2): " in text
    assert f"{images}/images/77.png (birds.csv, line 4)" in text
    assert f"{images}/images/78.png (birds.csv, line 8)" in text
    assert "paths that are listed more than once (1): " in text
    assert "(birds.csv, line 2 and birds.csv, line 6)" in text
    assert "no training image has (1): 'wolf' (birds.csv, line 7)" in text


def test_many_missing_files_are_counted_and_ten_named(images):
    source = write(images, row(0, "a"), row(1, "b"), *(row(100 + n, "a") for n in range(15)))
    with pytest.raises(
        ValueError, match=r"files that do not exist \(15\): .*109\.png .* and 5 more$"
    ):
        load(DataConfig(source))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "it has no rows"),
        ((row(0, "a"), row(1, "a")), "all images are of one class, 'a'"),
        ((row(0, "a"), row(1, "")), r"rows without a label \(1\): line 3"),
        ((row(0, "a"), ",b,train"), r"rows without a path \(1\): line 3"),
        ((row(0, "a"), row(1, "b", "")), r"rows without a split \(1\): line 3"),
        (
            (row(0, "a"), row(1, "b", "holdout")),
            r"split other than train, val and test \(1\): 'holdout' \(line 3\)",
        ),
        ((row(0, "a", "test"), row(1, "b", "val")), "no row has the split train"),
        ((row(0, "a"), "1.png,b"), r"do not have 3 columns .*\(1\): line 3 has 2"),
    ],
)
def test_rows_that_cannot_be_used(images, lines, message):
    with pytest.raises(ValueError, match=message):
        load(DataConfig(write(images, *lines)))


def test_absent_columns_are_named_beside_those_that_are_there(images):
    source = write(images, row(0, "a"), row(1, "b"))
    message = (
        "has no path_column 'file' and no split_column 'fold'; its columns are path, label, sp"
    )
    with pytest.raises(ValueError, match=message):
        load(DataConfig(source, path_column="file", split_column="fold"))


def test_files_that_are_no_table(tmp_path):
    for name in ("a.csv", "a.parquet"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=f"{name} cannot be read as a table"):
            load(DataConfig(str(tmp_path / name)))


def test_null_labels_of_parquet(images):
    table = {"path": [f"images/{n}.png" for n in range(3)], "label": ["a", None, "b"]}
    pq.write_table(pa.table(table), images / "t.parquet")
    with pytest.raises(ValueError, match=r"rows without a label \(1\): row 1"):
        load(DataConfig(str(images / "t.parquet")))


def test_columns_that_cannot_be_read_as_text(images):
    path = write(images, "images/0.png,a,b", header="path,label,label")
    with pytest.raises(ValueError, match=r"birds\.csv must have one column 'label', got several"):
        load(DataConfig(path))
    table = {"path": ["images/0.png"], "label": pa.array([{"bytes": b"x"}])}
    pq.write_table(pa.table(table), images / "t.parquet")
    with pytest.raises(ValueError, match=r"'label' of .*t\.parquet must hold text or number"):
        load(DataConfig(str(images / "t.parquet")))


def test_labels_that_differ_in_blanks_alone(images):
    lines = [row(n, label) for n, label in enumerate(["cat", "cat ", "dog", " dog", "eel"])]
    with pytest.raises(ValueError, match=r"only in whitespace \(2\): ' dog', 'cat '"):
        load(DataConfig(write(images, *lines)))


def test_a_link_to_nowhere_and_a_folder_are_no_files(images):
    (images / "images" / "10.png").unlink()
    (images / "images" / "10.png").symlink_to(images / "nowhere.png")
    (images / "images" / "11.png").unlink()
    (images / "images" / "11.png").mkdir()
    source = write(images, *(row(n, "ab"[n % 2]) for n in range(12)))
    with pytest.raises(ValueError, match=r"files that do not exist \(2\): .*10\.png.*11\.png"):
        load(DataConfig(source, check="exists"))

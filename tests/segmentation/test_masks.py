from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtail.segmentation import ColourCoding, IndexCoding, read_class_names, read_palette


def picture(values: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.array(values, dtype=np.uint8))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_values_of_an_index_mask() -> None:
    coding = IndexCoding((1, 2, 3), ignored=(0,))
    assert coding.decode(picture([[0, 1], [3, 255]])).tolist() == [[255, 0], [2, 255]]
    with pytest.raises(ValueError, match="value 4, 9 is not a class"):
        coding.decode(picture([[4, 9]]))
    assert IndexCoding((0, 255)).decode(picture([[0, 255]])).tolist() == [[0, 1]]


def test_a_colour_picture_without_a_palette() -> None:
    with pytest.raises(ValueError, match=r"RGB image, not an index PNG: set data\.palette"):
        IndexCoding((0, 1)).decode(Image.new("RGB", (2, 2), "red"))
    with pytest.raises(ValueError, match=r"RGBA image, not an index PNG: set data\.palette"):
        IndexCoding((0, 1)).decode(Image.new("RGBA", (2, 2), (1, 1, 1, 0)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_grey_masks_of_several_channels(mode: str) -> None:
    assert IndexCoding((0, 7)).decode(picture([[0, 7]]).convert(mode)).tolist() == [[0, 1]]


def test_masks_of_one_bit() -> None:
    assert IndexCoding((0, 1)).decode(picture([[0, 255]]).convert("1")).tolist() == [[0, 1]]


def test_sixteen_bit_masks() -> None:
    wide = Image.fromarray(np.array([[0, 300]], dtype=np.uint16))
    with pytest.raises(ValueError, match="value 300 is not a class"):
        IndexCoding((0, 1, 2)).decode(wide)
    narrow = Image.fromarray(np.array([[0, 2]], dtype=np.uint16))
    assert IndexCoding((0, 1, 2)).decode(narrow).tolist() == [[0, 2]]


def test_palette(tmp_path: Path) -> None:
    text = "# roads\n128 64 128\troad\n0,0,0,Void\n\n0 0 192  side walk\n1 2 3 road\n"
    coding, names = read_palette(write(tmp_path / "palette.txt", text))
    assert names == ("road", "side walk")
    colours = [[(128, 64, 128), (0, 0, 192)], [(0, 0, 0), (1, 2, 3)]]
    mask = Image.fromarray(np.array(colours, dtype=np.uint8))
    assert coding.decode(mask).tolist() == [[0, 1], [255, 0]]
    with pytest.raises(ValueError, match=r"colour \(1, 2, 4\), \(9, 9, 9\) is not in the palette"):
        coding.decode(Image.fromarray(np.array([[(9, 9, 9), (1, 2, 4)]], dtype=np.uint8)))


def test_a_colour_above_all_of_the_palette() -> None:
    with pytest.raises(ValueError, match=r"colour \(255, 255, 255\)"):
        ColourCoding((1,), (0,)).decode(Image.new("RGB", (1, 1), "white"))


def test_problems_of_a_palette_are_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", "1 2 3 road\n1 2 3 tree\n1 2 300 sky\nnonsense\n")
    with pytest.raises(ValueError, match=r"lines 1 \(road\) and 2 \(tree\) have the same") as error:
        read_palette(path)
    for words in ("p.txt", "line 3 must be", "line 4 must be"):
        assert words in str(error.value)
    with pytest.raises(ValueError, match="it has no class"):
        read_palette(write(tmp_path / "empty.txt", "# nothing\n"))


def test_class_names(tmp_path: Path) -> None:
    assert read_class_names(write(tmp_path / "c.txt", "road\ntree\n\n")) == ("road", "tree")
    with pytest.raises(ValueError, match=r"must name 1 to 255 classes.*\['road'\] twice"):
        read_class_names(write(tmp_path / "c.txt", "road\nroad\n"))
    with pytest.raises(ValueError, match="3 lines, 1 of them empty"):
        read_class_names(write(tmp_path / "c.txt", "road\n\ntree\n"))

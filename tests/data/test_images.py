from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from longtail.data import UnreadableImagesError, check_images, is_image, read_image, read_images
from longtail.data.images import natural_size, resize_images, to_rgb, upright_size

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def rgb(path: Path, shrink: float = 1.0) -> np.ndarray:
    with Image.open(path) as image:
        out = to_rgb(image, shrink)
    assert out.mode == "RGB"
    return np.asarray(out)


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[:, :, None], 3, axis=2)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif", "webp", "pgm"])
def test_greyscale_is_repeated(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP).save(path, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(rgb(path), grey(RAMP))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(levels).save(path)
    np.testing.assert_array_equal(rgb(path), grey(np.rint(levels / 257).astype(np.uint8)))


def test_sixteen_bits_of_the_other_byte_order(tmp_path):
    image = Image.frombytes("I;16B", (2, 1), bytes([0x80, 0x80, 0xFF, 0xFF]))
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), grey(np.array([[128, 255]])))


def test_one_bit(tmp_path):
    Image.fromarray(RAMP > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(rgb(tmp_path / "a.png"), grey(np.where(RAMP > 100, 255, 0)))


def test_floating_point_levels(tmp_path):
    Image.fromarray((RAMP / 255).astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(rgb(tmp_path / "a.tif"), grey(RAMP))
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=r"levels of a F image must lie in \[0, 1\], got 0 to 252"):
        rgb(tmp_path / "b.tif")


def test_thirty_two_bits_must_fit_sixteen(tmp_path):
    Image.fromarray(np.array([[0, 257, 65535]], np.int32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(rgb(tmp_path / "a.tif"), grey(np.array([[0, 1, 255]])))
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="got 0 to 70000"):
        rgb(tmp_path / "b.tif")


def test_transparency_is_laid_on_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
    np.testing.assert_array_equal(rgb(tmp_path / "a.png"), expected)
    Image.fromarray(pixels).convert("LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(rgb(tmp_path / "la.png")[0, 1], [255, 255, 255])


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        rgb(tmp_path / "a.png"), [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    )
    for name, transparency in (("b", 1), ("c", bytes([255, 0, 255]))):
        image.save(tmp_path / f"{name}.png", transparency=transparency)
        np.testing.assert_array_equal(
            rgb(tmp_path / f"{name}.png"), [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
        )


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for suffix in ("tif", "jpg"):
        image.save(tmp_path / f"a.{suffix}")
        assert np.abs(rgb(tmp_path / f"a.{suffix}").astype(int) - [0, 255, 255]).max() <= 2


@pytest.mark.parametrize("suffix", ["heic", "HEIF"])
def test_heic(tmp_path, suffix):
    pytest.importorskip("pillow_heif")
    path = tmp_path / f"a.{suffix}"
    assert is_image(str(path))
    Image.new("RGB", (64, 48), (200, 40, 60)).save(path)
    pixels = read_image(str(path), 32).permute(1, 2, 0).numpy()
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels.astype(int) - [200, 40, 60]).max() <= 8  # of a lossy format


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation, suffix):
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0], upright[0, -1], upright[-1, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # How a camera that is held so stores the picture: the inverse of the turn asked for.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(rgb(path), upright)
    with Image.open(path) as image:
        assert suffix == "png" or upright_size(image) == (6, 4)


def test_a_broken_exif_block_spoils_nothing(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*rubbish")
    np.testing.assert_array_equal(rgb(tmp_path / "a.png"), grey(RAMP))


def test_shrunk_jpeg_is_large_enough_and_alike(tmp_path):
    smooth = np.linspace(0, 255, 400).astype(np.uint8)[None].repeat(300, 0)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    small = rgb(tmp_path / "a.jpg", shrink=3.9)
    assert small.shape == (150, 200, 3)
    assert np.abs(small[:, :, 0].astype(int) - smooth[::2, ::2]).max() < 6


def test_read_image_crops_the_middle(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = grey(RAMP)
    Image.fromarray(wide).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        read_image(str(tmp_path / "a.png"), 8).permute(1, 2, 0), grey(RAMP)
    )


def test_margin_equals_resize_then_crop(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (96, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    two_steps = Image.fromarray(noise).resize((32, 48), Image.Resampling.BILINEAR)
    two_steps = np.asarray(two_steps.crop((2, 10, 30, 38)))
    one_step = read_image(str(tmp_path / "a.png"), 28, 32 / 28).permute(1, 2, 0).numpy()
    # Both round to 8 bits at different points.
    assert np.abs(one_step.astype(int) - two_steps).max() <= 1


def broken_files(folder: Path) -> dict[str, str]:
    noise = np.random.RandomState(0).randint(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(folder / "good.jpg")
    Image.fromarray(noise).save(folder / "good.png")
    for name in ("good.jpg", "good.png"):
        whole = (folder / name).read_bytes()
        (folder / f"cut_{name}").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_bytes(b"<html>not found</html>")
    (folder / "folder.png").mkdir()
    return {
        "cut_good.jpg": "truncated",
        "cut_good.png": "truncated",
        "empty.png": "the file is empty",
        "text.jpg": "not an image file",
        "folder.png": "Is a directory",
        "absent.png": "No such file or directory",
    }


@pytest.mark.parametrize("read", [check_images, lambda paths: read_images(paths, 8)])
def test_all_broken_files_are_named_at_once(tmp_path, read):
    reasons = broken_files(tmp_path)
    names = ["good.jpg", *reasons, *["good.png"] * 100]
    with pytest.raises(UnreadableImagesError) as caught:
        read([str(tmp_path / name) for name in names])
    assert {Path(path).name for path, _ in caught.value.failures} == set(reasons)
    for path, reason in caught.value.failures:
        assert reasons[Path(path).name].lower() in reason.lower()
        assert f"{path}: {reason}" in str(caught.value)
    assert str(caught.value).startswith("6 of 107 images cannot be read:")


def test_a_long_list_of_broken_files_is_cut():
    error = UnreadableImagesError([(f"{n:04d}.png", "empty") for n in range(1500)], 2000)
    assert len(error.failures) == 1500
    assert "0999.png: empty\n  and 500 more" in str(error)


def test_read_images_keeps_the_order(tmp_path):
    paths = []
    for n in range(150):
        paths.append(str(tmp_path / f"{n}.png"))
        Image.new("RGB", (4, 4), (n, 0, 255 - n)).save(paths[-1])
    images = read_images(paths, 4)
    assert images.shape == (150, 3, 4, 4)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(150, dtype=torch.uint8))


def test_resize_images():
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert resize_images(images, 8) is images
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(resize_images(flat, 32), torch.full((2, 3, 32, 32), 77, dtype=torch.uint8))


@pytest.mark.parametrize(("size", "expected"), [((30, 28), 28), ((64, 90), 64), ((65, 90), 224)])
def test_natural_size(tmp_path, size, expected):
    Image.new("L", size).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"")
    paths = [str(tmp_path / "a.png"), str(tmp_path / "broken.png")]
    assert natural_size(paths) == expected

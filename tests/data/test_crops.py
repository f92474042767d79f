import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from longtail.data import CentreCrop, RandomCrops


@pytest.fixture
def photo(tmp_path):
    """Red grows to the right and green downwards, so a pixel tells where it came from."""
    across, down = np.meshgrid(np.linspace(0, 255, 320), np.linspace(0, 255, 200))
    pixels = np.stack([across, down, np.zeros_like(across)], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def corners(view):
    """Left, top, right and bottom of a crop, as shares of the photo."""
    red, green = view[0].float() / 255, view[1].float() / 255
    return [
        x.item() for x in (red[:, 0].mean(), green[0].mean(), red[:, -1].mean(), green[-1].mean())
    ]


def test_centre_crop(photo):
    view = CentreCrop(28)(photo)
    assert view.shape == (3, 28, 28)
    assert view.dtype == torch.uint8
    side = 200 * 28 / 32
    expected = [0.5 - side / 640, 0.5 - side / 400, 0.5 + side / 640, 0.5 + side / 400]
    # A pixel of the result spans 1/32 of the height; its colour is that of its middle.
    torch.testing.assert_close(corners(view), expected, atol=0.02, rtol=0)


def test_random_crops_follow_the_global_generator(photo):
    crops = RandomCrops(16, ((0.08, 1.0), (0.08, 1.0)))
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(crops(photo))
    assert results[0].shape == (2, 3, 16, 16)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(results[0][0], results[0][1])
    assert RandomCrops(16)(photo).shape == (3, 16, 16)


def test_boxes_are_distributed_as_torchvisions(photo):
    ours = RandomCrops(16)
    theirs = v2.RandomResizedCrop(16, scale=(0.2, 1.0))
    image = torch.zeros(3, 200, 320)
    torch.manual_seed(0)
    boxes = torch.tensor([ours._box(320, 200, (0.2, 1.0)) for _ in range(2000)])
    params = [theirs.make_params([image]) for _ in range(2000)]
    expected = torch.tensor(
        [[p["left"], p["top"], p["left"] + p["width"], p["top"] + p["height"]] for p in params]
    )
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 320).all()
    assert (boxes[:, 3] <= 200).all()
    # Four standard errors of 2,000 draws with a deviation of some 70 pixels, and theirs round.
    torch.testing.assert_close(boxes.mean(0), expected.float().mean(0), atol=7, rtol=0)
    torch.testing.assert_close(boxes.std(0), expected.float().std(0), atol=7, rtol=0)


def test_a_shape_that_never_fits_falls_back_to_the_middle():
    left, top, right, low = RandomCrops(8)._box(1000, 10, (1.0, 1.0))
    assert (top, low) == (0, 10)
    assert right - left == pytest.approx(10 * 4 / 3)
    assert left + right == pytest.approx(1000)


def test_each_view_has_its_own_part_of_the_image(photo):
    whole, middle = RandomCrops(16, ((0.999, 1.0), None), ratio=(1.6, 1.6))(photo)
    assert corners(whole)[0] < 0.1 < 0.9 < corners(whole)[2]
    torch.testing.assert_close(middle.float(), CentreCrop(16)(photo).float(), atol=3, rtol=0)


def test_a_rotated_jpeg_is_cropped_upright_from_a_smaller_decode(tmp_path):
    across, down = np.meshgrid(np.linspace(0, 255, 320), np.linspace(0, 255, 200))
    upright = np.stack([across, down, np.zeros_like(across)], axis=2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    view = RandomCrops(16, ((0.999, 1.0),), ratio=(1.6, 1.6))(str(tmp_path / "a.jpg"))
    torch.testing.assert_close(corners(view), [1 / 32, 1 / 32, 31 / 32, 31 / 32], atol=0.03, rtol=0)

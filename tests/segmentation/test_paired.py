import pytest
import torch
import torch.nn.functional as F

from longtail.segmentation import PairedView, named_paired_view
from longtail.segmentation.views import paired_crop

GENERATOR = torch.Generator()


def pairs(batch: int = 3, height: int = 10, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 250, (batch, 4, height, width), dtype=torch.uint8, generator=generator)


def crop(given: torch.Tensor, top: float, left: float, scale: float, flipped: bool, size):
    batch = len(given)
    return paired_crop(
        given,
        *(torch.full((batch,), float(value)) for value in (top, left, scale)),
        torch.full((batch,), flipped),
        size,
    )


def test_at_scale_one_it_is_a_slice() -> None:
    given = pairs()
    assert torch.equal(crop(given, 2, 3, 1, False, (5, 6)), given[:, :, 2:7, 3:9])
    assert torch.equal(crop(given, 2, 3, 1, True, (5, 6)), given[:, :, 2:7, 3:9].flip(3))


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
def test_scaling_is_that_of_interpolate(scale: float) -> None:
    given = pairs(height=12, width=16)
    size = int(12 * scale), int(16 * scale)
    scaled = crop(given, 0, 0, scale, False, size)
    images = F.interpolate(given[:, :3].float(), size=size, mode="bilinear")
    assert (scaled[:, :3].float() - images).abs().max() <= 0.51
    masks = F.interpolate(given[:, 3:].float(), size=size, mode="nearest-exact")
    assert torch.equal(scaled[:, 3:].float(), masks)


def test_outside_is_black_and_ignored() -> None:
    given = pairs(height=4, width=4)
    moved = crop(given, -2, 1, 1, False, (6, 6))
    assert torch.equal(moved[:, :, 2:, :3], given[:, :, :, 1:])
    for outside in (moved[:, :, :2], moved[:, :, :, 3:]):
        assert (outside[:, :3] == 0).all()
        assert (outside[:, 3] == 255).all()


def test_image_and_classes_move_together() -> None:
    # Where the class is written into the red plane too, the two must agree after any view.
    given = pairs(batch=8, height=40, width=40)
    given[:, 3] = given[:, 0] = (torch.arange(40) // 8 * 40).to(torch.uint8)
    seen = PairedView((24, 24), scale=(0.5, 2.0))(given, torch.Generator().manual_seed(1))
    inside = seen[:, 3] != 255
    difference = (seen[:, 0].float() - seen[:, 3].float()).abs()[inside]
    assert (difference == 0).float().mean() > 0.75  # bilinear and nearest differ at borders
    assert difference.max() <= 40


def test_the_same_generator_gives_the_same_view() -> None:
    given = pairs()
    for name in ("none", "weak", "strong"):
        view = named_paired_view(name, (8, 8))
        first, second = (view(given, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, second)
        assert first.shape == (3, 4, 8, 8)
    assert torch.equal(named_paired_view("none", None)(given, GENERATOR), given)


def test_after_a_crop_elsewhere_flip_and_colours_are_left() -> None:
    rest = named_paired_view("strong", (8, 8)).without_crop()
    assert rest.scale == (1.0, 1.0)
    assert rest.jitter is not None
    assert rest(pairs(), GENERATOR).shape == pairs().shape


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"pairs must be uint8 \(batch, 4, height, width\)"):
        PairedView()(pairs()[:, :3], GENERATOR)
    with pytest.raises(ValueError, match="scale of PairedView must be 0 < smallest"):
        PairedView(scale=(2.0, 1.0))
    with pytest.raises(ValueError, match=r"views of segmentation must be .*did you mean 'weak'"):
        named_paired_view("weka", None)

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from longtail import ClassPrior
from longtail.data import InMemoryLoader
from longtail.segmentation import (
    PixelSplit,
    classes_of,
    confusion_of,
    dense_logits,
    pixel_confusion,
    target_of,
)
from longtail.segmentation.predict import _starts
from longtail.shift import adjust

C = 3


class Local(nn.Module):
    """Logits that depend on a pixel alone: windows and mirrors must change nothing."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 50


class Horizontal(nn.Module):
    """Logits that grow to the right."""

    def forward(self, images: Tensor) -> Tensor:
        across = torch.arange(images.shape[3]).float()
        return across.expand(len(images), C, images.shape[2], -1)


def images(height: int = 40, width: int = 56) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("window", [None, (16, 16), (40, 20), (64, 64), (39, 55)])
@pytest.mark.parametrize("flip", [False, True])
def test_windows_and_mirrors_of_a_local_model(window: tuple[int, int] | None, flip: bool) -> None:
    model = Local()
    found = dense_logits(model, images(), window=window, flip=flip)  # type: ignore[arg-type]
    torch.testing.assert_close(found, model(images()))


def test_a_mirrored_image_is_averaged() -> None:
    found = dense_logits(Horizontal(), images(), flip=True)  # type: ignore[arg-type]
    assert (found == 55 / 2).all()


@pytest.mark.parametrize(("length", "side"), [(56, 16), (40, 40), (41, 40), (100, 30), (16, 16)])
def test_windows_cover_and_overlap(length: int, side: int) -> None:
    starts = _starts(length, side)
    assert starts[0] == 0
    assert starts[-1] + side == length
    gaps = [b - a for a, b in pairwise(starts)]
    assert all(0 < gap <= side * 2 / 3 + 1 for gap in gaps)
    assert len(starts) <= max(1, -(-(length - side) * 3 // (2 * side)) + 1)


def test_prior_adjustment_is_that_of_flattened_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, C, 5, 6, generator=generator)
    uniform, target = torch.full((C,), 1 / C), torch.tensor([0.8, 0.19, 0.01])
    rows = adjust(logits.movedim(1, -1).reshape(-1, C), uniform, target).argmax(1)
    assert torch.equal(classes_of(logits, uniform, target).flatten(), rows)
    assert torch.equal(classes_of(logits, uniform, None), logits.argmax(1))
    assert torch.equal(classes_of(logits, uniform, uniform), logits.argmax(1))


def test_power_of_the_prior() -> None:
    prior, names = ClassPrior([90, 9, 1]), ("a", "b", "c")
    assert target_of(None, None, prior, names) is None
    torch.testing.assert_close(target_of(1.0, None, prior, names), prior.probabilities)
    torch.testing.assert_close(target_of(0.0, "source", prior, names), prior.probabilities)
    uniform = torch.full((C,), 1 / C, dtype=torch.float64)
    torch.testing.assert_close(target_of(0.0, None, prior, names), uniform)
    root = prior.probabilities.sqrt()
    torch.testing.assert_close(target_of(0.5, None, prior, names), root / root.sum())


def test_one_pass_counts_for_several_priors() -> None:
    pixels = images()
    target = (pixels[:, :1] // 100).where(pixels[:, :1] != 7, torch.tensor(255, dtype=torch.uint8))
    split = PixelSplit(
        labels=torch.zeros(2, dtype=torch.int64),
        index=torch.arange(2),
        images=torch.cat([pixels, target], 1),
        paths=("a", "b"),
        masks=("a", "b"),
        pixels=torch.ones(2, C, dtype=torch.int64),
    )
    loader = InMemoryLoader(split, 1, sampler="sequential")
    uniform, prior = torch.full((C,), 1 / C), torch.tensor([0.7, 0.2, 0.1])
    counts = confusion_of(Local(), loader, uniform, [None, prior])  # type: ignore[arg-type]
    for count, wanted in zip(counts, (None, prior), strict=True):
        found = classes_of(Local()(pixels), uniform, wanted)
        assert torch.equal(count, pixel_confusion(found, target[:, 0], C))
    assert not torch.equal(*counts)

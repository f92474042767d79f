import pytest
import torch
from torch import Tensor

from longtail import ClassPrior, losses
from longtail.losses import ClassificationLoss
from longtail.segmentation.methods import pixel_loss, sample_pixels, shrink

C = 4
PRIOR = ClassPrior([500, 80, 20, 3])
LOSSES = [
    value
    for value in (getattr(losses, name) for name in losses.__all__)
    if isinstance(value, type)
    and issubclass(value, ClassificationLoss)
    and value is not ClassificationLoss
]


def maps(seed: int = 0, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, C, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(C, (2, 5, 6), generator=generator)
    target[torch.rand(2, 5, 6, generator=generator) < ignored] = 255
    return logits, target


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.__name__)
def test_equals_the_classification_loss_of_flattened_pixels(
    cls: type[ClassificationLoss], smoothing: float
) -> None:
    loss = cls(PRIOR)
    if smoothing:
        try:
            loss.smooth_labels(smoothing)
        except ValueError:
            pytest.skip("without label smoothing")
    logits, target = maps()
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    rows = torch.stack([theirs[b, :, y, x] for b, y, x in (target != 255).nonzero().tolist()])
    expected = loss(rows, target[target != 255])
    expected.backward()
    value = pixel_loss(loss, ours, target)
    value.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ours.grad is not None
    assert (ours.grad.movedim(1, -1)[target == 255] == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
@pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.__name__)
def test_any_integer_type_of_the_target(cls: type[ClassificationLoss], dtype: torch.dtype) -> None:
    logits, target = maps()
    expected = pixel_loss(cls(PRIOR), logits, target)
    assert torch.equal(pixel_loss(cls(PRIOR), logits, target.to(dtype)), expected)


@pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.__name__)
def test_wrong_targets_are_refused(cls: type[ClassificationLoss]) -> None:
    logits, target = maps()
    target[1, 2, 3] = C
    with pytest.raises(ValueError, match=rf"target of \w+ must be in \[0, {C}\).*got \[{C}\]"):
        pixel_loss(cls(PRIOR), logits, target)
    with pytest.raises(ValueError, match=r"target of \w+ must be class indices of an integer type"):
        pixel_loss(cls(PRIOR), logits, target.double())


@pytest.mark.parametrize("cls", [losses.CrossEntropyLoss, losses.LogitAdjustedLoss])
def test_a_smaller_map_is_brought_to_the_size_of_the_target(cls: type[ClassificationLoss]) -> None:
    logits, target = maps()
    small = logits[:, :, :3, :2]
    grown = torch.nn.functional.interpolate(small, size=(5, 6), mode="bilinear")
    rows = grown.movedim(1, -1)[target != 255]
    expected = cls(PRIOR)(rows, target[target != 255])
    torch.testing.assert_close(pixel_loss(cls(PRIOR), small, target), expected)


@pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.__name__)
def test_all_pixels_ignored(cls: type[ClassificationLoss]) -> None:
    logits, target = maps(ignored=2.0)
    logits.requires_grad_()
    value = pixel_loss(cls(PRIOR), logits, target)
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


def test_samples_are_a_fixed_number_a_class_and_image() -> None:
    target = torch.full((3, 20, 30), 255)
    target[0, :, :15] = 0
    target[0, :, 15:] = 1
    target[1, 0, :5] = 2
    chosen = sample_pixels(target, C, per_class=8)
    counts = torch.zeros(3, C, dtype=torch.int64)
    counts.index_put_((chosen.images, chosen.labels), torch.ones_like(chosen.labels), True)
    assert counts.tolist() == [[8, 8, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0]]
    assert torch.equal(target.flatten()[chosen.indices], chosen.labels)
    assert torch.equal(chosen.indices // 600, chosen.images)
    assert len(chosen.indices.unique()) == len(chosen)
    # They spread over the rows of a class rather than crowd in one.
    rows = chosen.indices[(chosen.labels == 0)] // 30
    assert rows.max() - rows.min() > 12


def test_samples_are_random_and_even() -> None:
    torch.manual_seed(0)
    target = torch.zeros(1, 1, 40, dtype=torch.int64)
    drawn = torch.cat([sample_pixels(target, C, 4).indices for _ in range(500)])
    counts = torch.bincount(drawn, minlength=40)
    assert counts.min() > 25  # 50 are expected
    assert counts.max() < 80


def test_sampled_values() -> None:
    target = torch.tensor([[[0, 255], [1, 255]], [[255, 255], [255, 2]]])
    values = torch.arange(16.0).view(2, 2, 2, 2)
    chosen = sample_pixels(target, C, per_class=3)
    assert chosen.of(values).tolist() == [[0, 4], [2, 6], [11, 15]]


def test_shrinking_takes_the_nearest_pixel() -> None:
    target = torch.arange(24).view(1, 4, 6)
    assert shrink(target, torch.Size([4, 6])) is target
    assert shrink(target, torch.Size([2, 3])).tolist() == [[[7, 9, 11], [19, 21, 23]]]
    expected = torch.nn.functional.interpolate(
        target[:, None].float(), size=(3, 5), mode="nearest-exact"
    )[:, 0]
    assert torch.equal(shrink(target, torch.Size([3, 5])).float(), expected)

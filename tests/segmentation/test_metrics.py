import math

import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from longtail import ClassPrior
from longtail.segmentation import (
    class_accuracy,
    class_iou,
    pixel_confusion,
    pixel_groups,
    segmentation_metrics,
)

C = 5
PRIOR = ClassPrior([900, 30, 400, 2, 77])


def batches(absent: int | None = None) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for size in ((2, 6, 7), (1, 9, 4)):
        target = torch.randint(C, size, generator=generator)
        target[target == absent] = 0
        predicted = torch.where(
            torch.rand(size, generator=generator) < 0.6,
            target,
            torch.randint(C, size, generator=generator),
        )
        predicted[predicted == absent] = 0
        target[torch.rand(size, generator=generator) < 0.1] = 255
        found.append((predicted, target))
    return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_against_torchmetrics_over_the_data_set(dtype: torch.dtype) -> None:
    matrix = MulticlassConfusionMatrix(C, ignore_index=255)
    iou = MulticlassJaccardIndex(C, average="none", ignore_index=255)
    ours = torch.zeros(C, C, dtype=torch.int64)
    for predicted, target in batches():
        matrix.update(predicted, target)
        iou.update(predicted, target)
        ours += pixel_confusion(predicted, target.to(dtype), C)
    assert torch.equal(ours, matrix.compute())
    torch.testing.assert_close(class_iou(ours).float(), iou.compute())
    figures = segmentation_metrics(ours, PRIOR)
    assert figures["miou"] == pytest.approx(float(iou.compute().mean()))
    assert figures["tail_iou"] == pytest.approx(float(iou.compute()[[1, 3]].mean()))
    assert figures["head_iou"] == pytest.approx(float(iou.compute()[[0, 2]].mean()))
    assert figures["medium_iou"] == pytest.approx(float(iou.compute()[4]))


def test_a_class_that_is_nowhere_counts_for_nothing() -> None:
    ours = sum(pixel_confusion(p, t, C) for p, t in batches(absent=3))
    assert isinstance(ours, torch.Tensor)
    assert class_iou(ours).isnan().tolist() == [False, False, False, True, False]
    assert class_accuracy(ours).isnan().sum() == 1
    known = [c for c in range(C) if c != 3]
    figures = segmentation_metrics(ours, PRIOR)
    assert figures["miou"] == pytest.approx(float(class_iou(ours)[known].mean()))
    assert figures["tail_iou"] == pytest.approx(float(class_iou(ours)[1]))


def test_nothing_at_all() -> None:
    figures = segmentation_metrics(torch.zeros(C, C, dtype=torch.int64), PRIOR)
    assert all(math.isnan(value) for value in figures.values())


@pytest.mark.parametrize(("classes", "sizes"), [(1, (0, 1, 0)), (2, (1, 0, 1)), (11, (4, 3, 4))])
def test_thirds_of_the_classes(classes: int, sizes: tuple[int, ...]) -> None:
    groups = pixel_groups(ClassPrior(torch.arange(classes) + 1))
    assert tuple(map(len, groups.values())) == sizes
    assert torch.cat(list(groups.values())).tolist() == list(range(classes))[::-1]


def test_a_prediction_that_is_no_class() -> None:
    with pytest.raises(ValueError, match=r"predicted of pixel_confusion must .* got 0 to 2"):
        pixel_confusion(torch.tensor([2, 0]), torch.tensor([0, 0]), 2)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"must have the same shape, got \(2,\) and \(3,\)"):
        pixel_confusion(torch.zeros(2).long(), torch.zeros(3).long(), C)
    with pytest.raises(ValueError, match=r"must lie in \[0, 5\) or be 255, got \[-1, 5, 254\]"):
        pixel_confusion(torch.zeros(4).long(), torch.tensor([254, 5, -1, 255]), C)
    with pytest.raises(ValueError, match=r"confusion must be \(5, 5\)"):
        segmentation_metrics(torch.zeros(4, 4), PRIOR)

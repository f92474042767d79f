import pytest
import torch

from longtail.data import draw
from longtail.data.dataset import Split
from longtail.data.stratified import cut_validation, hold_out, rank_within_class

COUNTS = torch.tensor([600, 60, 6])
LABELS = torch.arange(3).repeat_interleave(COUNTS)[
    torch.randperm(666, generator=torch.Generator().manual_seed(3))
]


def epochs(sampler, number=20):
    generator = torch.Generator().manual_seed(0)
    return [draw(LABELS, sampler, generator) for _ in range(number)]


def test_sequential_and_shuffle_see_every_image_once():
    assert torch.equal(epochs("sequential")[0], torch.arange(666))
    first, second = epochs("shuffle", 2)
    assert torch.equal(first.sort().values, torch.arange(666))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("sampler", "power"), [("class_balanced", 0.0), ("square_root", 0.5)])
def test_class_frequencies(sampler, power):
    drawn = torch.bincount(LABELS[torch.cat(epochs(sampler))], minlength=3) / (20 * 666)
    expected = COUNTS**power / (COUNTS**power).sum()
    # 13,320 draws: four standard deviations are below 0.018.
    torch.testing.assert_close(drawn, expected.float(), atol=0.018, rtol=0)


def test_images_of_a_class_come_equally_often():
    times = torch.bincount(epochs("class_balanced", 1)[0], minlength=666)
    for c in range(3):
        of_class = times[c == LABELS]
        assert of_class.max() - of_class.min() <= 1


def test_a_class_without_images_is_never_drawn():
    labels = torch.tensor([0, 2, 2, 0])
    order = draw(labels, "class_balanced", torch.Generator().manual_seed(0))
    assert set(labels[order].tolist()) <= {0, 2}


def test_same_state_same_order():
    orders = [draw(LABELS, "square_root", torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*orders)


def test_unknown_sampler():
    with pytest.raises(ValueError, match=r"sampler must be sequential, .* got 'balanced'"):
        draw(LABELS, "balanced", torch.Generator())


def test_rank_within_class_equals_a_loop():
    seen: dict[int, int] = {}
    expected = []
    for label in LABELS.tolist():
        expected.append(seen.get(label, 0))
        seen[label] = expected[-1] + 1
    assert rank_within_class(LABELS).tolist() == expected


@pytest.mark.parametrize(
    ("count", "least", "aside"),
    [(1, 1, 0), (2, 1, 1), (3, 1, 1), (10, 1, 2), (2, 0, 0), (10, 0, 2)],
)
def test_hold_out_takes_the_share_of_each_class(count, least, aside):
    labels = torch.cat([torch.zeros(100, dtype=torch.int64), torch.ones(count, dtype=torch.int64)])
    held = hold_out(labels, 0.2, seed=1, least=least)
    assert held[:100].sum() == 20
    assert held[100:].sum() == aside


def test_hold_out_never_takes_the_last_image():
    labels = torch.arange(4).repeat_interleave(torch.tensor([1, 2, 3, 40]))
    held = hold_out(labels, 0.99, seed=0, least=1)
    assert torch.bincount(labels[~held]).tolist() == [1, 1, 1, 1]


def test_hold_out_follows_the_seed():
    one, same, other = (hold_out(LABELS, 0.3, seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_cut_validation_divides_a_split():
    split = Split(LABELS, torch.arange(666) + 1000, None, tuple(map(str, range(666))))
    train, val = cut_validation(split, 0.1, seed=0)
    assert val is not None
    assert len(val) == 60 + 6 + 1
    assert sorted(train.index.tolist() + val.index.tolist()) == split.index.tolist()
    assert [int(path) + 1000 for path in val.paths] == val.index.tolist()
    assert cut_validation(split, 0.0, seed=0) == (split, None)
    with pytest.raises(ValueError, match=r"val_fraction 0\.0001 leaves its split empty"):
        cut_validation(split, 0.0001, seed=0)

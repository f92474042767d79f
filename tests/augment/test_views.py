"""Views by name, many views at once, and what is shared between them."""

from dataclasses import dataclass, field

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from longtail.augment import (
    VIEWS,
    AutoAugment,
    Cutout,
    Drawn,
    Operation,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    View,
    brightness,
    make_views,
    named_view,
    sharpness,
)

SHAPES = [(1, 3, 32, 32), (6, 3, 8, 8), (5, 3, 20, 28), (2, 3, 112, 96)]


@dataclass(frozen=True)
class Add(Operation):
    """Adds a number, and notes how many images it got."""

    number: int
    calls: list[int] = field(default_factory=list, compare=False)

    def draw(self, shape, generator):
        self.calls.append(shape[0])
        return Drawn((), lambda images, drawn: images + self.number)


class NoCopyOfPythonNumbers(TorchDispatchMode):
    """Refuses a list as an index and the like: it is copied to the device, which waits for it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.lift_fresh.default:
            assert not result.is_meta
        return result


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", VIEWS)
def test_every_view_keeps_shape_and_follows_its_generator(name, shape):
    images = noise(shape)
    before = images.clone()
    view = named_view(name, min(shape[2:]))
    seen, again, other = (view(images, draw(seed)) for seed in (1, 1, 2))
    assert seen.shape == images.shape
    assert seen.dtype == torch.uint8
    assert torch.equal(seen, again)
    assert name == "none" or not torch.equal(seen, other)
    assert torch.equal(images, before)


def test_sim_makes_a_fifth_grey():
    images = torch.randint(
        0, 256, (2000, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    _, colouring = named_view("sim", 32).apart()
    seen = View(colouring.operations[1:])(images, torch.Generator().manual_seed(0))  # no flip
    grey = (seen == seen[:, :1]).flatten(1).all(dim=1)
    same = (seen == images).flatten(1).all(dim=1)
    assert 0.16 < grey.float().mean() < 0.24
    assert 0.12 < same.float().mean() < 0.20  # 0.2 without jitter, of which 0.8 stay coloured


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "none"])
def test_images_of_a_batch_are_seen_differently(name):
    images = noise((1, 3, 32, 32)).expand(64, -1, -1, -1)
    seen = named_view(name, 32)(images, draw())
    assert len({image.numpy().tobytes() for image in seen}) > 32


def test_measures_follow_the_size():
    assert named_view("auto", 32).operations == (
        RandomCrop(4),
        RandomFlip(),
        AutoAugment(fill=128),
        Cutout(16),
    )
    assert named_view("cutout", 8).operations == (RandomCrop(1), RandomFlip(), Cutout(4))
    assert isinstance(named_view("auto", 224).operations[0], RandomResizedCrop)


def test_a_resized_crop_is_taken_apart_from_the_rest():
    crop, rest = named_view("auto", 224).apart()
    assert crop == RandomResizedCrop()
    assert rest.operations == (RandomFlip(), AutoAugment(fill=128), Cutout(112))
    for view in (named_view("auto", 32), named_view("none", 224), named_view("shift", 224)):
        assert view.apart() == (None, view)


def test_a_digit_is_never_mirrored():
    assert not any(isinstance(op, RandomFlip) for op in named_view("shift", 8).operations)


def test_equal_views_run_in_one_pass():
    images = noise((4, 3, 2, 2))
    add = Add(1)
    views = make_views(images, [View((add, Add(2, add.calls)))] * 3, draw())
    assert views.shape == (3, 4, 3, 2, 2)
    assert torch.equal(views, (images + 3).expand(3, -1, -1, -1, -1))
    assert add.calls == [12, 12]


def test_views_share_what_they_begin_with():
    images = noise((4, 3, 2, 2))
    calls = []
    recipes = [(1, 2), (5,), (1, 7, 9), (), (1, 2)]
    views = [View(tuple(Add(n, calls) for n in numbers)) for numbers in recipes]
    seen = make_views(images, views, draw())
    for view, numbers in zip(seen, recipes, strict=True):
        assert torch.equal(view, images + sum(numbers))
    assert sorted(calls) == [4, 4, 4, 8, 12]  # 5; 7; 9; 2 twice; 1 three times


def test_equal_views_differ_in_what_they_draw():
    images = noise((8, 3, 32, 32))
    first, second = make_views(images, [named_view("auto", 32)] * 2, draw())
    assert not torch.equal(first, second)


def test_views_are_copies():
    images = noise((2, 3, 4, 4))
    views = make_views(images, [named_view("none", 4)], draw())
    assert torch.equal(views[0], images)
    views.zero_()
    assert images.any()


def test_a_name_that_is_not_known():
    with pytest.raises(ValueError, match=r"one of \['none', .*got 'autto'; did you mean 'auto'"):
        named_view("autto", 32)
    with pytest.raises(ValueError, match="size of named_view must be >= 1, got 0"):
        named_view("auto", 0)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 8, 8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
    ],
)
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(ValueError, match=r"images of a view must be uint8 .* got"):
        named_view("weak", 8)(images, draw())


def test_no_view_is_refused():
    with pytest.raises(ValueError, match="views of make_views must hold at least one view"):
        make_views(noise((2, 3, 8, 8)), [], draw())


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("size", [(32, 32), (112, 96)])
def test_nothing_waits_for_the_device(name, size):
    """Tensors of the meta device have no values: whoever asks for one gets an error."""
    images = torch.zeros(6, 3, *size, dtype=torch.uint8, device="meta")
    views = [named_view(name, min(size)), named_view("weak", min(size))]
    with NoCopyOfPythonNumbers():
        seen = make_views(images, views, draw())
    assert seen.is_meta
    assert seen.shape == (2, 6, 3, *size)


@pytest.mark.gpu
def test_operations_are_the_same_on_cuda():
    images = noise((64, 3, 32, 32))
    factor = torch.linspace(0, 2, 64)
    for operation in (brightness, sharpness):
        there = operation(images.cuda(), factor.cuda()).cpu()
        assert (there.int() - operation(images, factor).int()).abs().max() <= 1
    for name in VIEWS:
        view = named_view(name, 32)
        seen, again = (view(images.cuda(), draw()) for _ in range(2))
        assert torch.equal(seen, again)
        # What is drawn is the same; roundings may differ, and equalising enlarges one of them.
        far = (seen.cpu().int() - view(images, draw()).int()).abs() > 1
        assert far.float().mean() < 0.05
    with pytest.raises(ValueError, match="generator of a view must be on the CPU"):
        named_view("weak", 32)(images.cuda(), torch.Generator("cuda"))


def test_a_function_can_be_an_operation_of_a_view():
    def darker(images, generator):
        share = torch.rand(len(images), 1, 1, 1, generator=generator)
        return (images * share).to(torch.uint8)

    images, view = noise((4, 3, 32, 32)), View((RandomFlip(), darker))
    seen = view(images, draw(1))
    assert seen.float().mean() < images.float().mean()
    assert torch.equal(seen, view(images, draw(1)))
    assert not torch.equal(seen, view(images, draw(2)))

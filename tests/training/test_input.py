from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from longtail.augment import (
    VIEWS,
    CutMix,
    Drawn,
    Mixup,
    RandomFlip,
    RandomResizedCrop,
    make_views,
    named_view,
)
from longtail.data import Batch, CentreCrop, DataConfig, Dataset, RandomCrops, Split
from longtail.data.seeds import mix_seed
from longtail.recipes import RECIPES
from longtail.segmentation.input import MakePairedView
from longtail.segmentation.views import PAIRED_VIEWS, named_paired_view
from longtail.training import Config, input
from longtail.training.input import STEPS_AHEAD, MakeViews, TrainingLoader, training_loader

ALONE = SimpleNamespace(device=torch.device("cpu"), global_rank=0, world_size=1)


def dataset(size: int) -> Dataset:
    split = Split(torch.tensor([0, 1] * 4), torch.arange(8), None, tuple(map(str, range(8))))
    return Dataset("files", ("a", "b"), split, None, None, size)


def reading(views: list[str], size: int = 224):
    config = Config(DataConfig("files", workers=0), {"name": "gml"}, views=views, batch_size=4)
    loader = training_loader(dataset(size), config, 3, ALONE)
    return loader.images.transform, loader.make.views


@pytest.mark.parametrize("views", [["weak"], ["rand", "rand_stack", "rand_stack"]])
def test_large_images_are_cropped_once_a_view_where_they_are_read(views):
    transform, rest = reading(views)
    assert isinstance(transform, RandomCrops)
    assert (transform.size, transform.scales) == (224, ((0.08, 1.0),) * 3)
    assert len(rest) == 3
    assert not any(isinstance(op, RandomResizedCrop) for view in rest for op in view.operations)


def test_images_are_mirrored_by_the_views_that_do_it_and_no_other():
    _, rest = reading(["weak"])
    assert all(isinstance(view.operations[0], RandomFlip) for view in rest)
    _, rest = reading(["shift"])
    assert not any(isinstance(op, RandomFlip) for view in rest for op in view.operations)


@pytest.mark.parametrize("view", ["none", "shift"])
def test_views_without_a_resized_crop_see_the_middle(view):
    transform, rest = reading([view])
    assert isinstance(transform, CentreCrop)
    assert transform.size == 224
    assert rest == (named_view(view, 224),) * 3


def test_each_view_is_cropped_as_it_says():
    transform, rest = reading(["rand", "moco", "none"])
    assert transform.scales == ((0.08, 1.0), (0.2, 1.0), None)
    assert [len(view.operations) for view in rest] == [3, 4, 0]


def views_of_recipes() -> list[MakeViews]:
    names = {(name,) for name in VIEWS}
    for recipe in RECIPES:
        if recipe.source != "camvid":
            found = recipe.settings.get("views", "none")
            names.add((found,) if isinstance(found, str) else tuple(found))
    views = [tuple(named_view(name, 16) for name in each) for each in sorted(names)]
    mixed = [MakeViews(views[0], mix) for mix in (Mixup(0.4), CutMix())]
    return [MakeViews(each) for each in views] + mixed + [MakeViews(views[-1] * 2, None, True)]


@dataclass
class Images:
    """A loader of some batches."""

    batches: list[Batch]
    seed = 3
    rank = 1

    def __len__(self):
        return len(self.batches)

    def epoch(self, number, first=0):
        yield from self.batches[first:]


@pytest.mark.parametrize("make", views_of_recipes(), ids=str)
@pytest.mark.parametrize("first", [0, 3])
def test_views_drawn_ahead_are_those_of_their_steps(make, first):
    steps, generator = STEPS_AHEAD + 6, torch.Generator().manual_seed(0)
    shape = (steps, *[len(make.views)] * make.read_apart, 3, 3, 16, 16)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    batches = [Batch(each, torch.arange(3), torch.arange(3) + 7) for each in images]
    seen = list(TrainingLoader(Images(batches), make).epoch(2, first))
    for step, ours in enumerate(seen, first):
        generator.manual_seed(mix_seed(3, 2, step, 1, 0))
        if make.read_apart:
            pairs = zip(make.views, images[step], strict=True)
            expected = torch.stack([view(part, generator) for view, part in pairs])
        else:
            expected = make_views(images[step], make.views, generator)
        if make.mix:
            mixed = make.mix(expected[0], torch.arange(3), generator)
            expected[0] = mixed.images
            assert torch.equal(ours.partner.other, mixed.other)
            assert torch.equal(ours.partner.weight, mixed.weight)
        assert torch.equal(ours.views, expected)
    assert len(seen) == steps - first


PAIRED = [MakePairedView(named_paired_view(name, (8, 8))) for name in PAIRED_VIEWS]


@pytest.mark.parametrize("make", views_of_recipes() + PAIRED, ids=str)
def test_on_a_gpu_views_wait_for_nothing_and_a_step_copies_nothing(make, foreign, monkeypatch):
    """Fake tensors know the device, not the values."""
    gpu, sent = FakeTensorMode(allow_non_fake_inputs=True), []

    def send(tensors, device):
        assert device.type == "cuda"
        sent.append(tensors)
        with gpu:
            return [tensor.cuda() for tensor in tensors]

    def draw(shape, generator):
        drawn = make(shape, generator)

        def apply(batch, parameters):
            with gpu, foreign:
                return drawn.apply(batch, parameters)

        return Drawn(drawn.parameters, apply)

    monkeypatch.setattr(input, "send", send)
    monkeypatch.setattr(input, "STEPS_AHEAD", 2)
    apart = [len(make.views)] if getattr(make, "read_apart", False) else []
    planes = 4 if make in PAIRED else 3
    with gpu:
        images = torch.empty(*apart, 6, planes, 16, 16, dtype=torch.uint8, device="cuda")
        batch = Batch(images, *torch.zeros(2, 6, dtype=torch.int64, device="cuda"))
    batches = list(TrainingLoader(Images([batch] * 4), draw).epoch(0, 1))
    assert [each.views.device.type for each in batches] == ["cuda"] * 3
    assert not foreign.found
    assert len(sent) == 2

from types import SimpleNamespace

import pytest
import torch

from longtail.augment import RandomFlip, RandomResizedCrop, named_view
from longtail.data import CentreCrop, DataConfig, Dataset, RandomCrops, Split
from longtail.training import Config
from longtail.training.input import training_loader

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
    assert [len(view.operations) for view in rest] == [3, 3, 0]

from types import SimpleNamespace

import pytest
import torch

from longtail.augment import RandomCrop, RandomFlip
from longtail.data import CentreCrop, DataConfig, Dataset, RandomCrops, Split
from longtail.training import Config
from longtail.training.input import training_input

ALONE = SimpleNamespace(device=torch.device("cpu"), global_rank=0, world_size=1)


def dataset(size: int) -> Dataset:
    split = Split(torch.tensor([0, 1] * 4), torch.arange(8), None, tuple(map(str, range(8))))
    return Dataset("files", ("a", "b"), split, None, None, size)


def reading(views: list[str], size: int = 224):
    config = Config(DataConfig("files", workers=0), {"name": "gml"}, views=views, batch_size=4)
    loader, rest = training_input(dataset(size), config, 3, ALONE)
    return loader.transform, rest


@pytest.mark.parametrize("views", [["weak"], ["rand", "rand_stack", "rand_stack"]])
def test_large_images_are_cropped_once_a_view_where_they_are_read(views):
    transform, rest = reading(views)
    assert isinstance(transform, RandomCrops)
    assert (transform.size, transform.views) == (224, 3)
    assert len(rest) == 3
    assert not any(isinstance(op, RandomCrop) for view in rest for op in view.operations)


def test_images_are_mirrored_by_the_views_that_do_it_and_no_other():
    transform, rest = reading(["weak"])
    assert transform.flip == 0
    assert all(isinstance(view.operations[0], RandomFlip) for view in rest)
    transform, rest = reading(["shift"])
    assert transform.flip == 0
    assert not any(isinstance(op, RandomFlip) for view in rest for op in view.operations)


def test_views_without_a_crop_see_the_middle():
    transform, rest = reading(["none"])
    assert isinstance(transform, CentreCrop)
    assert transform.size == 224
    assert len(rest) == 3

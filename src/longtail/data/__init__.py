"""Data sets of images: sources, checks, long-tailed subsets, samplers and loaders."""

from longtail.data.check import Findings, check_source
from longtail.data.cifar import cifar10_lt, cifar100_lt
from longtail.data.config import DataConfig
from longtail.data.crops import CentreCrop, RandomCrops
from longtail.data.dataset import Dataset, Split
from longtail.data.digits import digits_lt
from longtail.data.folder import folder
from longtail.data.formats import is_image
from longtail.data.huggingface import as_source, from_huggingface
from longtail.data.images import (
    UnreadableImagesError,
    check_images,
    read_image,
    read_images,
)
from longtail.data.listfile import imagenet_lt, inaturalist18, places_lt
from longtail.data.load import BUILT_IN, load
from longtail.data.loaders import (
    Batch,
    InMemoryLoader,
    Loader,
    WorkerLoader,
    available_cpus,
)
from longtail.data.longtailed import long_tailed_counts, long_tailed_subset
from longtail.data.paths import is_url
from longtail.data.remote import UnreachableError
from longtail.data.samplers import ClassBalancedSampler, Sampling, draw
from longtail.data.shard_writer import write_shards
from longtail.data.shards import shards
from longtail.data.table import table
from longtail.data.tree import files_below, images_below

__all__ = [
    "BUILT_IN",
    "Batch",
    "CentreCrop",
    "ClassBalancedSampler",
    "DataConfig",
    "Dataset",
    "Findings",
    "InMemoryLoader",
    "Loader",
    "RandomCrops",
    "Sampling",
    "Split",
    "UnreachableError",
    "UnreadableImagesError",
    "WorkerLoader",
    "as_source",
    "available_cpus",
    "check_images",
    "check_source",
    "cifar10_lt",
    "cifar100_lt",
    "digits_lt",
    "draw",
    "files_below",
    "folder",
    "from_huggingface",
    "imagenet_lt",
    "images_below",
    "inaturalist18",
    "is_image",
    "is_url",
    "load",
    "long_tailed_counts",
    "long_tailed_subset",
    "places_lt",
    "read_image",
    "read_images",
    "shards",
    "table",
    "write_shards",
]

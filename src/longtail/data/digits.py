"""A long-tailed version of scikit-learn's digits."""

import numpy as np
import torch

from longtail.data.config import DataConfig
from longtail.data.dataset import Dataset, Split
from longtail.data.images import resize_images
from longtail.data.longtailed import long_tailed_counts, long_tailed_subset
from longtail.data.stratified import cut_validation

IMBALANCE = 30
TEST_IMAGES = 40  # per class


def digits_lt(config: DataConfig) -> Dataset:
    """Scikit-learn's 1,797 digits of 8x8 pixels: a balanced test split, and a long-tailed rest.

    The test split has 40 images per class. Of the rest, class 0 keeps as many images as the
    smallest class has. `index` is the index of an image in scikit-learn's order. No file is needed.

    Raises:
        InputError: when the imbalance leaves a class without an image.

    Examples:
        >>> data = digits_lt(DataConfig("digits-lt"))
        >>> data.prior.counts.tolist()
        [134, 91, 62, 43, 29, 20, 13, 9, 6, 4]
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    grey = torch.from_numpy(np.rint(raw.images * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(raw.target.astype(np.int64))
    images = grey[:, None].expand(-1, 3, -1, -1).contiguous()
    size = config.image_size or images.shape[-1]
    everything = Split(
        labels=labels,
        index=torch.arange(len(labels)),
        images=resize_images(images, size),
        paths=tuple(f"digits/{i}" for i in range(len(labels))),
    )
    test = long_tailed_subset(labels, [TEST_IMAGES] * 10, config.seed)
    rest = torch.from_numpy(np.setdiff1d(np.arange(len(labels)), test.numpy()))
    imbalance = IMBALANCE if config.imbalance is None else config.imbalance
    n_max = int(torch.bincount(labels[rest]).min())
    counts = long_tailed_counts(10, n_max, imbalance, config.imbalance_type)
    chosen = rest[long_tailed_subset(labels[rest], counts, config.seed)]
    train, val = cut_validation(everything.take(chosen), config.val_fraction, config.seed)
    names = tuple(map(str, range(10)))
    return Dataset("digits-lt", names, train, val, everything.take(test), size)

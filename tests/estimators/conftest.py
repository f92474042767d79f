"""Long-tailed Gaussian classes with names, and a balanced test set."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

NAMES = np.array(["ant", "bee", "cat", "dog"])
COUNTS = (160, 60, 20, 6)


class Data(NamedTuple):
    x: NDArray[np.float64]
    y: NDArray[np.str_]
    test: NDArray[np.float64]
    truth: NDArray[np.str_]


def draw(counts: tuple[int, ...], seed: int) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), counts)
    means = 1.1 * np.vstack([np.eye(4), np.zeros((2, 4))]).T
    return means[labels] + rng.normal(0, 0.6, (len(labels), 6)), NAMES[labels]


@pytest.fixture(scope="session")
def data() -> Data:
    return Data(*draw(COUNTS, 0), *draw((100,) * 4, 1))

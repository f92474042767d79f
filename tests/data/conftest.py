from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


def save(path: Path, seed: int = 0, size: tuple[int, int] = (10, 8)) -> None:
    """Noise of the given width and height, unlike that of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def save_image() -> Callable[..., None]:
    return save


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes a folder of class folders with so many images in each, PNG and JPEG in turn."""

    def make(
        counts: Mapping[str, int], name: str = "pets", size: tuple[int, int] = (10, 8)
    ) -> Path:
        for c, (label, count) in enumerate(counts.items()):
            (tmp_path / name / label).mkdir(parents=True)
            for n in range(count):
                suffix = "jpg" if n % 2 else "png"
                save(tmp_path / name / label / f"{n:03d}.{suffix}", 1000 * c + n, size)
        return tmp_path / name

    return make

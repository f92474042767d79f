"""Made-up scenes: ground, sky, a few boxes, and rarely a thin pole; 255 around the border."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("ground", "sky", "box", "pole")
COLOURS = np.array([[90, 80, 60], [120, 170, 230], [200, 60, 50], [240, 230, 90]])
MakeScenes = Callable[..., Path]


def scene(number: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) and classes (H, W)."""
    draw = np.random.default_rng(number)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[: int(height * draw.uniform(0.3, 0.6))] = 1
    top, left = draw.integers(0, height // 2), draw.integers(0, width // 2)
    mask[top : top + height // 3, left : left + width // 3] = 2
    if number % 2 == 0:
        pole = draw.integers(2, width - 4)
        mask[height // 4 :, pole : pole + 2] = 3
    image = COLOURS[mask] + draw.normal(0, 12, (height, width, 3))
    mask[:2] = 255
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture
def make_scenes(tmp_path: Path) -> MakeScenes:
    """Writes an image + mask folder and returns it."""

    def make(
        name: str = "scenes",
        sizes: dict[str, int] | None = None,
        shape: tuple[int, int] = (32, 48),
    ) -> Path:
        root = tmp_path / name
        for offset, (part, count) in enumerate((sizes or {"train": 12, "test": 4}).items()):
            for kind in ("images", "masks"):
                (root / kind / part).mkdir(parents=True)
            for number in range(count):
                image, mask = scene(1000 * offset + number, *shape)
                Image.fromarray(image).save(root / "images" / part / f"{number:03d}.png")
                Image.fromarray(mask).save(root / "masks" / part / f"{number:03d}.png")
        (root / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
        return root

    return make

"""From a source's name or folder to its data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from longtail.data.segmentation.ade20k import ade20k, is_ade20k
from longtail.data.segmentation.camvid import camvid, is_camvid
from longtail.data.segmentation.cityscapes import cityscapes, is_cityscapes
from longtail.data.segmentation.config import PixelDataConfig
from longtail.data.segmentation.counts import PairCounts, count_pairs
from longtail.data.segmentation.dataset import PixelDataset, PixelSplit
from longtail.data.segmentation.folder import folder, is_folder
from longtail.data.segmentation.layout import Layout
from longtail.data.segmentation.pairs import PairReader, scaled_size
from longtail.errors import InputError

IN_MEMORY_BYTES = 2**31

# Each layout, and how it is told from the others.
LAYOUTS: dict[str, tuple[Callable[[Path, PixelDataConfig], Layout], Callable[[Path], bool]]] = {
    "camvid": (camvid, is_camvid),
    "cityscapes": (cityscapes, is_cityscapes),
    "ade20k": (ade20k, is_ade20k),
    "folder": (folder, is_folder),
}
PIXEL_SOURCES = {name: read for name, (read, _) in LAYOUTS.items() if name != "folder"}


def load_pixels(config: PixelDataConfig) -> PixelDataset:
    """Finds, checks and counts the pairs of a source, and reads them where they fit in memory.

    They are held in memory when all have one size in the end and take no more than 2 GiB.

    Raises:
        BadPairsError: names every pair that cannot be used, and why.
        ValueError: when the source is not known, or a class has no training pixel.
    """
    layout = _find(config)
    if not layout.splits.get("train"):
        raise InputError(f"{layout.root} has no training image in the layout {layout.name}")
    counts = count_pairs(layout)
    names = layout.class_names or tuple(
        f"class {c}" for c in range(int(np.flatnonzero(counts.pixels.any(axis=0)).max()) + 1)
    )
    _check_classes(layout, counts, names)
    splits = _splits(layout, counts, names, config.image_size)
    return PixelDataset(
        name=layout.name,
        class_names=names,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        coding=layout.coding,
        image_size=config.image_size,
    )


def _find(config: PixelDataConfig) -> Layout:
    if config.source in PIXEL_SOURCES:
        root = Path(config.root or Path("data") / config.source).absolute()
        if not LAYOUTS[config.source][1](root):
            raise InputError(f"{root} does not hold {config.source}: set data.root to its folder")
        return _read(config.source, root, config)
    root = Path(config.source).absolute()
    if config.root is not None:
        raise InputError(
            f"data.root must be left out where the source is a folder, got {config.root}"
        )
    for name, (_, matches) in LAYOUTS.items():
        if matches(root):
            return _read(name, root, config)
    raise InputError(
        f"source '{config.source}' of segmentation must be one of {', '.join(PIXEL_SOURCES)} or a "
        f"folder in one of these layouts:\n{_describe_layouts()}"
    )


def _read(name: str, root: Path, config: PixelDataConfig) -> Layout:
    given = [setting for setting in ("palette", "classes") if getattr(config, setting) is not None]
    if name != "folder" and given:
        raise InputError(
            f"data.{given[0]} must be left out: the layout {name} has classes of its own"
        )
    if len(given) == 2:
        raise InputError("data.classes must be left out where data.palette names the classes")
    return LAYOUTS[name][0](root, config)


def _describe_layouts() -> str:
    lines = [
        " ".join((read.__doc__ or "").split("\n\n")[0].split()) for read, _ in LAYOUTS.values()
    ]
    return "\n".join(f"  {line}" for line in lines)


def _check_classes(layout: Layout, counts: PairCounts, names: tuple[str, ...]) -> None:
    """Every class must be learned from: a class without a pixel has no prior."""
    trained = counts.pixels[: len(layout.splits["train"])].sum(0)
    absent = [name for name, count in zip(names, trained, strict=False) if not count]
    if absent:
        raise InputError(
            f"every class must have a pixel in the training part of {layout.root}, "
            f"{len(absent)} of {len(names)} have none: {', '.join(absent[:10])}"
        )


def _splits(
    layout: Layout, counts: PairCounts, names: tuple[str, ...], shorter: int | None
) -> dict[str, PixelSplit]:
    total = counts.pixels[: len(layout.splits["train"])].sum(0)[: len(names)]
    sizes = {scaled_size((int(w), int(h)), shorter) for w, h in np.unique(counts.sizes, axis=0)}
    (width, height) = next(iter(sizes))
    fits = len(sizes) == 1 and len(counts.sizes) * 4 * width * height <= IN_MEMORY_BYTES
    splits = {}
    begin = 0
    for part, pairs in layout.splits.items():
        rows = slice(begin, begin + len(pairs))
        begin += len(pairs)
        if not pairs:
            continue
        reader = PairReader(dict(pairs), layout.coding, shorter)
        pixels = counts.pixels[rows, : len(names)]
        splits[part] = PixelSplit(
            labels=torch.from_numpy(np.where(pixels > 0, total, total.max() + 1).argmin(1)),
            index=torch.arange(rows.start, rows.stop),
            images=reader.read_all((width, height)) if fits else None,
            paths=tuple(image for image, _ in pairs),
            masks=tuple(mask for _, mask in pairs),
            pixels=torch.from_numpy(pixels),
        )
    return splits

"""Folder layouts of segmentation data: where images and masks lie, and what the masks mean."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longtail.data import files_below, is_image
from longtail.errors import InputError
from longtail.files import read_text
from longtail.ranges import MAX_SIDE, MAX_WORKERS, check_range
from longtail.segmentation.masks import Coding, IndexCoding, read_class_names, read_palette

SPLITS = ("train", "val", "test")
PairFiles = tuple[str, str]  # files of an image and of its mask


@dataclass
class PixelDataConfig:
    """Source of images and masks.

    Args:
        source: `camvid`, `cityscapes` or `ade20k`, with its folder as `root`; or a folder in one of
            these layouts, or with `images/{train,val,test}` beside `masks/{train,val,test}`.
        root: folder of a source that is given by its name; default: `data/NAME`.
        palette: for a folder whose masks are colour images: text file of lines `red green blue
            name`. Pixels of classes called ignore, void or unlabelled are ignored.
        classes: for a folder: text file with one class name per line, in the order of the class
            indices; default: `classes.txt` in the folder, if there is one.
        image_size: shorter side in pixels that images and masks are resized to; default: not
            resized.
        workers: processes that read images from files; default: one per CPU core, at most 8.

    Raises:
        InputError: when a value is out of range.
    """

    source: str
    root: str | None = None
    palette: str | None = None
    classes: str | None = None
    image_size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Checks the ranges of the values."""
        if self.image_size is not None:
            check_range("image_size", self.image_size, least=1, most=MAX_SIDE)
        if self.workers is not None:
            check_range("workers", self.workers, least=0, most=MAX_WORKERS)


@dataclass(frozen=True)
class Layout:
    """Files of a data set, found but not read.

    Args:
        name: name of the data set.
        root: folder of the data set.
        splits: files of each image and its mask in the train, val and test split.
        coding: meaning of the mask values.
        class_names: class names in the order of the class indices; empty where they are unknown.
    """

    name: str
    root: Path
    splits: dict[str, list[PairFiles]]
    coding: Coding
    class_names: tuple[str, ...]


def as_png(file: Path) -> Path:
    """The same path with the suffix .png."""
    return file.with_suffix(".png")


def find_pairs(
    images: Path, masks: Path, rename: Callable[[Path], Path] = as_png
) -> list[PairFiles]:
    """Every image file below a folder, sorted, with the mask file that it should have.

    Args:
        images: folder of the images; the result is empty where it does not exist.
        masks: folder of the masks.
        rename: from an image's path below `images` to its mask's path below `masks`.
    """
    files = sorted(Path(path) for path in files_below(images) if is_image(path))
    return [(str(file), str(masks / rename(file.relative_to(images)))) for file in files]


CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)


def is_camvid(root: Path) -> bool:
    """Whether a folder has the layout of CamVid."""
    return (root / "train").is_dir() and (root / "trainannot").is_dir()


def camvid(root: Path, config: PixelDataConfig) -> Layout:
    """CamVid: train/ val/ test/ beside trainannot/ ..., 11 classes, mask value 11 is ignored."""
    splits = {name: find_pairs(root / name, root / f"{name}annot") for name in SPLITS}
    coding = IndexCoding(len(CAMVID_CLASSES), ignored=(11,))
    return Layout("camvid", root, splits, coding, CAMVID_CLASSES)


CITYSCAPES_CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)


def is_cityscapes(root: Path) -> bool:
    """Whether a folder has the layout of Cityscapes."""
    return (root / "leftImg8bit").is_dir()


def cityscapes(root: Path, config: PixelDataConfig) -> Layout:
    """Cityscapes: leftImg8bit/ and gtFine/ with *_labelTrainIds.png, 19 classes; no test split.

    The labels of its test split are not public. The `createTrainIdLabelImgs` script of the data
    set's authors makes the files with train ids.
    """
    splits = {
        name: find_pairs(root / "leftImg8bit" / name, root / "gtFine" / name, _train_ids_of)
        for name in ("train", "val")
    }
    coding = IndexCoding(len(CITYSCAPES_CLASSES))
    return Layout("cityscapes", root, splits, coding, CITYSCAPES_CLASSES)


def _train_ids_of(file: Path) -> Path:
    return file.with_name(file.stem.removesuffix("_leftImg8bit") + "_gtFine_labelTrainIds.png")


ADE20K_CLASSES = 150


def is_ade20k(root: Path) -> bool:
    """Whether a folder has the layout of ADE20K's scene parsing challenge."""
    return (root / "images" / "training").is_dir()


def ade20k(root: Path, config: PixelDataConfig) -> Layout:
    """ADE20K: images/training beside annotations/training, 150 classes from 1, 0 is ignored."""
    splits = {
        name: find_pairs(root / "images" / folder, root / "annotations" / folder)
        for name, folder in {"train": "training", "val": "validation"}.items()
    }
    coding = IndexCoding(ADE20K_CLASSES, first=1, ignored=(0,))
    return Layout("ade20k", root, splits, coding, _ade20k_names(root / "objectInfo150.txt"))


def _ade20k_names(path: Path) -> tuple[str, ...]:
    """First name of each class in the data set's own list; numbers where the file is missing."""
    if not path.is_file():
        return tuple(f"class {c + 1}" for c in range(ADE20K_CLASSES))
    rows = csv.DictReader(read_text(path).splitlines(), delimiter="\t")
    rows.fieldnames = columns = [name.strip() for name in rows.fieldnames or ()]
    if "Name" not in columns:
        raise InputError(f"{path} must have a column Name, got {columns}")
    names = [row["Name"] or "" for row in rows]
    if len(names) != ADE20K_CLASSES:
        raise InputError(f"{path} must list {ADE20K_CLASSES} classes, got {len(names)}")
    return tuple(name.split(",")[0].strip() for name in names)


def is_folder(root: Path) -> bool:
    """Whether a folder has images in splits."""
    return (root / "images" / "train").is_dir()


def folder(root: Path, config: PixelDataConfig) -> Layout:
    """images/{train,val,test} beside masks/{train,val,test}: PNG of the same name.

    Masks are index PNGs (grey or with a palette of their own, 255 is ignored), or colour images
    with a palette file.
    """
    splits = {name: find_pairs(root / "images" / name, root / "masks" / name) for name in SPLITS}
    if config.palette is not None:
        coding, names = read_palette(config.palette)
        return Layout(root.name, root, splits, coding, names)
    listed = Path(config.classes) if config.classes else root / "classes.txt"
    names = read_class_names(listed) if config.classes or listed.is_file() else ()
    return Layout(root.name, root, splits, IndexCoding(len(names) or None), names)


# Each layout, and the test that recognises it.
LAYOUTS: dict[str, tuple[Callable[[Path, PixelDataConfig], Layout], Callable[[Path], bool]]] = {
    "camvid": (camvid, is_camvid),
    "cityscapes": (cityscapes, is_cityscapes),
    "ade20k": (ade20k, is_ade20k),
    "folder": (folder, is_folder),
}
PIXEL_SOURCES = {name: read for name, (read, _) in LAYOUTS.items() if name != "folder"}


def find_layout(config: PixelDataConfig) -> Layout:
    """The layout of a source, with the files that it has.

    Raises:
        InputError: when the source is unknown, or a setting does not fit the layout.
    """
    if config.source in PIXEL_SOURCES:
        root = Path(config.root or Path("data") / config.source).absolute()
        if not LAYOUTS[config.source][1](root):
            raise InputError(f"{root} does not hold {config.source}: set data.root to its folder")
        return _read(config.source, root, config)
    root = Path(config.source).absolute()
    if config.root is not None:
        raise InputError(f"data.root has no effect where the source is a folder, got {config.root}")
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
        raise InputError(f"data.{given[0]} has no effect: layout {name} defines its own classes")
    if len(given) == 2:
        raise InputError("data.classes must be left out where data.palette names the classes")
    return LAYOUTS[name][0](root, config)


def _describe_layouts() -> str:
    lines = [
        " ".join((read.__doc__ or "").split("\n\n")[0].split()) for read, _ in LAYOUTS.values()
    ]
    return "\n".join(f"  {line}" for line in lines)

"""Folder layouts of segmentation data: locations of images and masks, and meaning of masks."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longtail.data import images_below
from longtail.data.problems import counted
from longtail.data.split_names import SPLITS
from longtail.errors import InputError
from longtail.files import read_text
from longtail.ranges import MAX_SIDE, MAX_WORKERS, check_range
from longtail.segmentation.masks import Coding, index_coding, read_class_names, read_palette
from longtail.segmentation.pairing import PairFiles, match_masks, split_folders


@dataclass
class PixelDataConfig:
    """Source of images and masks.

    Args:
        source: `camvid`, `cityscapes` or `ade20k`, with its folder as `root`; or a folder in one of
            these layouts, or with `images/{train,val,test}` and `masks/{train,val,test}`.
        root: folder of a source given by name; default: `data/NAME`.
        palette: for a folder with colour images as masks: text file with lines `red green blue
            name`. Pixels of classes called ignore, void or unlabelled are ignored.
        classes: for a folder: text file with one class name per line, in the order of the class
            indices; default: `classes.txt` in the folder, if there is one. With it, a folder in the
            layout of CamVid or ADE20K can have its own classes.
        values: for a folder: mask value of each class, such as 0 255; default: 0 to C - 1, or 1 to
            C if no mask has a 0.
        ignored: for a folder: mask values of ignored pixels, in addition to 255.
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
    values: list[int] | None = None
    ignored: list[int] | None = None
    image_size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Checks the ranges of the values."""
        for name in ("values", "ignored"):
            given = [] if getattr(self, name) is None else getattr(self, name)
            if not isinstance(given, list | tuple):
                raise InputError(f"{name} must be a list of mask values, got {given!r}")
            for value in given:
                check_range(name, value, least=0, most=255, whole=True)
            if len({*given}) < len(given):
                raise InputError(f"{name} must be different, got {given}")
        if self.values is not None and len(self.values) < 2:
            raise InputError(f"values must be of two or more classes, got {self.values}")
        if both := set(self.values or ()) & set(self.ignored or ()):
            raise InputError(f"values and ignored must have no value in common, got {sorted(both)}")
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
        coding: meaning of the mask values; None if the values that occur determine it.
        class_names: class names in the order of the class indices; empty if unknown.
        zero_is_ignored: whether the value 0 is ignored if there is another value for each class.
    """

    name: str
    root: Path
    splits: dict[str, list[PairFiles]]
    coding: Coding | None
    class_names: tuple[str, ...]
    zero_is_ignored: bool = False


def as_png(file: Path) -> Path:
    """The same path with the suffix .png."""
    return file.with_suffix(".png")


def find_pairs(
    images: Path, masks: Path, rename: Callable[[Path], Path] = as_png
) -> list[PairFiles]:
    """Every image file below a folder, sorted, with the mask file that it should have.

    Args:
        images: folder of the images; the result is empty if it does not exist.
        masks: folder of the masks.
        rename: maps an image's path below `images` to its mask's path below `masks`.
    """
    files = images_below(images)
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
    """CamVid: train/ val/ test/ with trainannot/ ..., 11 classes, mask value 11 is ignored."""
    splits = {name: find_pairs(root / name, root / f"{name}annot") for name in SPLITS}
    own = own_classes(root, config)
    if own is not None:
        return Layout(root.name, root, splits, None, own)
    coding = index_coding(len(CAMVID_CLASSES), ignored=(11,))
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
    coding = index_coding(len(CITYSCAPES_CLASSES))
    return Layout("cityscapes", root, splits, coding, CITYSCAPES_CLASSES)


def _train_ids_of(file: Path) -> Path:
    return file.with_name(file.stem.removesuffix("_leftImg8bit") + "_gtFine_labelTrainIds.png")


ADE20K_CLASSES = 150


def is_ade20k(root: Path) -> bool:
    """Whether a folder has the layout of ADE20K's scene parsing challenge."""
    return all((root / kind / "training").is_dir() for kind in ("images", "annotations"))


def ade20k(root: Path, config: PixelDataConfig) -> Layout:
    """ADE20K: images/training with annotations/training, 150 classes from 1, 0 is ignored."""
    splits = {
        name: find_pairs(root / "images" / folder, root / "annotations" / folder)
        for name, folder in {"train": "training", "val": "validation"}.items()
    }
    own = own_classes(root, config)
    if own is not None:
        return Layout(root.name, root, splits, None, own, zero_is_ignored=True)
    coding = index_coding(ADE20K_CLASSES, first=1, ignored=(0,))
    return Layout("ade20k", root, splits, coding, _ade20k_names(root / "objectInfo150.txt"))


def _ade20k_names(path: Path) -> tuple[str, ...]:
    """First name of each class in the data set's own list; numbers if the file is missing."""
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
    """Whether a folder has images and masks in splits."""
    return root.is_dir() and "train" in split_folders(root)


def folder(root: Path, config: PixelDataConfig) -> Layout:
    """images/{train,val,test} with masks/{train,val,test}, or {train,val,test}/{images,masks}.

    A mask has the name of its image, or NAME_mask. Masks are index PNGs (grey or with their own
    palette, 255 is ignored), or colour images with a palette file.
    """
    splits = match_masks(root, split_folders(root))
    if config.palette is not None:
        coding, names = read_palette(config.palette)
        return Layout(root.name, root, splits, coding, names)
    return Layout(root.name, root, splits, None, own_classes(root, config) or ())


def own_classes(root: Path, config: PixelDataConfig) -> tuple[str, ...] | None:
    """Names of the classes that are a folder's own, not its layout's; empty if unknown.

    Returns: None if neither a file names them nor their mask values are given.
    """
    listed = Path(config.classes) if config.classes else root / "classes.txt"
    if config.classes or (config.source not in LAYOUTS and listed.is_file()):
        return read_class_names(listed)
    return () if config.values else None


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
        raise InputError(f"data.root has no effect if the source is a folder, got {config.root}")
    for name, (_, matches) in LAYOUTS.items():
        if matches(root):
            return _read(name, root, config)
    raise InputError(
        f"source '{config.source}' of segmentation must be one of {', '.join(PIXEL_SOURCES)} or a "
        f"folder in one of these layouts:\n{_describe_layouts()}\n{_there(root)}"
    )


def _there(root: Path) -> str:
    """The content of a folder that matches no layout."""
    if not root.is_dir():
        return f"There is no folder {root}"
    names = [f"{path.name}/" for path in sorted(root.iterdir()) if path.is_dir()]
    inner = [f"{n}{p.name}/" for n in names for p in sorted((root / n).iterdir()) if p.is_dir()]
    return counted(f"{root} has the folders", [*names, *inner]) if names else f"{root} has none"


def _read(name: str, root: Path, config: PixelDataConfig) -> Layout:
    settings = ("palette", "classes", "values", "ignored")
    given = [setting for setting in settings if getattr(config, setting) is not None]
    allowed = {"folder": settings, "cityscapes": ()}.get(name, settings[1:])
    if refused := [s for s in given if s not in allowed or config.source in PIXEL_SOURCES]:
        raise InputError(f"data.{refused[0]} has no effect: layout {name} defines its own classes")
    if "palette" in given and len(given) > 1:
        raise InputError(f"data.{given[1]} must be left out if data.palette names the classes")
    layout = LAYOUTS[name][0](root, config)
    if layout.coding is not None and config.ignored:
        raise InputError(
            f"data.ignored has no effect: layout {name} defines its own classes, unless they are "
            "named by --data.classes"
        )
    return layout


def _describe_layouts() -> str:
    lines = [
        " ".join((read.__doc__ or "").split("\n\n")[0].split()) for read, _ in LAYOUTS.values()
    ]
    return "\n".join(f"  {line}" for line in lines)

"""The settings that say where images and their masks come from."""

from dataclasses import dataclass

from longtail.errors import InputError


@dataclass
class PixelDataConfig:
    """Where images and masks come from.

    Args:
        source: `camvid`, `cityscapes` or `ade20k` with its folder as `root`; or a folder, whose
            layout is found out: one of these, or `images/{train,val,test}` beside `masks/...`.
        root: of a source that is named; `data/NAME` when not given.
        palette: folder of images and masks: text file of lines `red green blue name`, for masks
            that are colour pictures. Classes called ignore, void or unlabelled do not count.
        classes: folder of images and masks: text file with a class name in each line, in the order
            of the indices; `classes.txt` in the folder when not given and there.
        image_size: shorter side in pixels that images and masks are brought to; as they are when
            not given.
        workers: processes that read large images; one for each processor, at most 8, when not
            given.

    Raises:
        ValueError: when a value is out of its range.
    """

    source: str
    root: str | None = None
    palette: str | None = None
    classes: str | None = None
    image_size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Checks the values that no type can check."""
        if self.image_size is not None and self.image_size < 1:
            raise InputError(f"image_size must be 1 or more pixels, got {self.image_size}")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers must be 0 or more, got {self.workers}")

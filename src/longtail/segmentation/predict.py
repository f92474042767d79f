"""Logits of whole images, optionally in windows and mirrored, and their confusion matrix."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from longtail.data import Loader
from longtail.errors import NotFiniteError
from longtail.prior import ClassPrior
from longtail.segmentation.config import check_size
from longtail.segmentation.metrics import pixel_confusion
from longtail.segmentation.model import Segmenter
from longtail.shift import adjust, resolve_prior
from longtail.training.interrupts import are_usable

OVERLAP = 1 / 3  # least overlap of neighbouring windows


@torch.no_grad()
def dense_logits(
    model: Segmenter, images: Tensor, *, window: Sequence[int] | None = None, flip: bool = False
) -> Tensor:
    """Logits of whole images.

    Args:
        model: the model, in evaluation mode.
        images: (B, 3, H, W) uint8.
        window: height and width of windows that overlap by at least a third, where their
            logits are averaged. None: the whole image at once.
        flip: average with the logits of the mirrored image.

    Returns: (B, C, H, W) float32.
    Raises:
        InputError: when the window is not a height and width of 16 or more.
    """
    check_size("window", window)
    logits = _in_windows(model, images, window)
    if flip:
        logits = (logits + _in_windows(model, images.flip(3), window).flip(3)) / 2
    return logits


def _in_windows(model: Segmenter, images: Tensor, window: Sequence[int] | None) -> Tensor:
    if window is None:
        whole: Tensor = model(images)
        return whole
    size = [min(side, limit) for side, limit in zip(window, images.shape[2:], strict=True)]
    starts = [_starts(limit, side) for side, limit in zip(size, images.shape[2:], strict=True)]
    total: Tensor | None = None
    counts = torch.zeros(images.shape[2:], device=images.device)
    for top, left in product(*starts):
        region = (..., slice(top, top + size[0]), slice(left, left + size[1]))
        logits = model(images[region])
        if total is None:
            total = logits.new_zeros(*logits.shape[:2], *images.shape[2:])
        total[region] += logits
        counts[region] += 1
    assert total is not None
    return total / counts


def _starts(length: int, side: int) -> list[int]:
    """First pixels of the fewest evenly spaced windows that cover a length and overlap enough."""
    step = side * (1 - OVERLAP)
    more = -int(-(length - side) // step)
    return [round(n * (length - side) / max(more, 1)) for n in range(more + 1)]


def target_of(
    power: float | None, target_prior: str | None, prior: ClassPrior, names: Sequence[str]
) -> Tensor | None:
    """The prior to predict for, (C,), or None for the one that the model expresses.

    Args:
        power: power of the pixel prior, used without `target_prior`.
        target_prior: `uniform`, `source` or a file of probabilities.
        prior: pixels of each class in the training set.
        names: class names, which a file may use.
    """
    if target_prior is not None:
        return resolve_prior(target_prior, prior, len(names), names)
    return None if power is None else (power * prior.log_prior).softmax(0)


def classes_of(logits: Tensor, expressed: Tensor, target: Tensor | None) -> Tensor:
    """Most probable class (B, H, W) of each pixel of logits (B, C, H, W), under a target prior."""
    if target is not None:
        logits = adjust(logits.movedim(1, -1), expressed, target).movedim(-1, 1)
    return logits.argmax(1)


@torch.no_grad()
def confusion_of(
    model: Segmenter,
    pairs: Loader,
    expressed: Tensor,
    targets: Sequence[Tensor | None],
    *,
    window: Sequence[int] | None = None,
    flip: bool = False,
) -> Tensor:
    """Confusion matrices of a whole data set, one for each target prior, in one pass.

    Args:
        model: the model, on the loader's device.
        pairs: loader of image-mask pairs (B, 4, H, W).
        expressed: (C,), the prior that the model's logits express.
        targets: priors (C,) to predict for; None: the expressed one.
        window: see `dense_logits`.
        flip: see `dense_logits`.

    Returns: (targets, C, C) int64, on the CPU.
    Raises:
        NotFiniteError: when logits are NaN or infinite.
    """
    model.eval()
    counts: list[Tensor | int] = [0] * len(targets)
    for batch in pairs.epoch(0):
        logits = dense_logits(model, batch.images[:, :3], window=window, flip=flip)
        if not are_usable(logits):
            raise NotFiniteError("the model gives NaN or infinite logits")
        for number, target in enumerate(targets):
            found = classes_of(logits, expressed, target)
            counts[number] += pixel_confusion(found, batch.images[:, 3], len(expressed))
    empty = torch.zeros(len(expressed), len(expressed), dtype=torch.int64)  # of no image at all
    return torch.stack([empty + torch.as_tensor(count).cpu() for count in counts])

"""Images per second of the view `auto` and of torchvision's per-image pipelines, on one core.

    python bench/augment.py [--rounds 9] [--device cpu] [--out results/augment.json]

All apply the same operations to the same 32x32 images, with a uint8 batch as the result: random
crop with padding 4, flip, AutoAugment (CIFAR-10 policy), Cutout 16. torchvision's pipelines start
from arrays, via PIL as in its CIFAR reader, or as tensors with its v2 transforms. Each round times
every pipeline in turn; results are medians over the rounds, and ratios are within the same round.
With another device the batched pipeline runs there, while the others stay on one core of the host.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from longtail import augment
from longtail.augment import make_views, named_view
from longtail.files import write_json
from longtail.training.run import environment

BATCHES = (128, 384, 1024)
OPERATION_BATCH = 384


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options.add_argument("--out", type=Path, default=Path("results/augment.json"))
    given = options.parse_args()
    torch.set_num_threads(1)
    # A training process has already allocated and freed megabytes, after which the C library keeps
    # small blocks; a fresh process returns every block and pays for its pages again.
    torch.zeros(30 << 20, dtype=torch.uint8)
    images = pictures(max(BATCHES))
    pipelines = [measure_pipelines(images[:n], given.rounds, given.device) for n in BATCHES]
    some = images[:OPERATION_BATCH]
    about = {
        "environment": environment(),
        "device": str(given.device),
        "rounds": given.rounds,
        "image": list(images.shape[1:]),
    }
    result = {
        **about,
        "pipelines": pipelines,
        "views": measure_views(some, given.rounds, given.device),
        "operations": measure_operations(some, given.rounds, given.device),
    }
    write_json(given.out, result)
    print(f"written: {given.out}")


def pictures(count: int) -> Tensor:
    """Smooth random images with a little noise."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, 6, 6, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(small, size=32, mode="bicubic")
    noise = torch.randn(count, 3, 32, 32, generator=generator) * 8
    return (smooth + noise).clamp(0, 255).byte()


def measure_pipelines(images: Tensor, rounds: int, device: torch.device) -> dict[str, object]:
    """The view `auto` of a batch in the three ways."""
    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images]
    tensors = list(images)
    pil = transforms.Compose(
        [
            Image.fromarray,
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10, fill=[128] * 3),
            transforms.PILToTensor(),
            cut_one,
        ]
    )
    tensor = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=128),
            cut_one,
        ]
    )
    batch, generator = images.to(device), torch.Generator().manual_seed(0)
    view = named_view("auto", 32)
    seconds = interleaved(
        {
            "longtail": lambda: make_views(batch, [view], generator),
            "torchvision_pil": lambda: torch.stack([pil(array) for array in arrays]),
            "torchvision_v2": lambda: torch.stack([tensor(image) for image in tensors]),
        },
        rounds,
    )
    rate = {name: len(images) / statistics.median(times) for name, times in seconds.items()}
    ratio = {
        name: statistics.median(
            theirs / ours for theirs, ours in zip(times, seconds["longtail"], strict=True)
        )
        for name, times in seconds.items()
        if name != "longtail"
    }
    print(
        f"batch {len(images):5}: "
        + ", ".join(f"{name} {value:,.0f}" for name, value in rate.items())
        + " images/s; "
        + ", ".join(f"{value:.1f} times {name}" for name, value in ratio.items())
    )
    return {
        "batch": len(images),
        "images_per_second": {name: round(value) for name, value in rate.items()},
        "speed_over": {name: round(value, 2) for name, value in ratio.items()},
    }


def cut_one(image: Tensor) -> Tensor:
    """Cutout of one image, as its authors' code does it."""
    row, column = torch.randint(32, (2,)).tolist()
    image[:, max(0, row - 8) : row + 8, max(0, column - 8) : column + 8] = 0
    return image


def measure_views(images: Tensor, rounds: int, device: torch.device) -> dict[str, int]:
    """Images per second of every named view."""
    batch, generator = images.to(device), torch.Generator().manual_seed(0)
    views = {name: named_view(name, 32) for name in augment.VIEWS}
    seconds = interleaved(
        {
            name: lambda view=view: make_views(batch, [view], generator)
            for name, view in views.items()
        },
        rounds,
    )
    rate = {name: round(len(images) / statistics.median(s)) for name, s in seconds.items()}
    print(*(f"view {name:12} {value:9,} images/s" for name, value in rate.items()), sep="\n")
    return rate


def measure_operations(
    images: Tensor, rounds: int, device: torch.device
) -> list[dict[str, object]]:
    """Microseconds per image of each operation, and of torchvision's on single tensors."""
    batch, tensors = images.to(device), list(images)
    rows = []
    for name, (ours, theirs) in operations(batch).items():
        seconds = interleaved(
            {
                "longtail": lambda ours=ours: ours(batch),
                "torchvision_v2": lambda theirs=theirs: [theirs(image) for image in tensors],
            },
            rounds,
        )
        cost = {
            who: round(statistics.median(times) / len(images) * 1e6, 2)
            for who, times in seconds.items()
        }
        print(f"{name:16} {cost['longtail']:7.2f} us, torchvision {cost['torchvision_v2']:7.2f} us")
        rows.append({"name": name, "microseconds_per_image": cost})
    return rows


Pair = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def operations(batch: Tensor) -> dict[str, Pair]:
    """Every operation, batched and torchvision's, with parameters that cost the same work."""

    def each(value: float) -> Tensor:
        return torch.full((len(batch),), value, device=batch.device)

    place, factor, centre = each(2).long(), each(1.3), each(12).long()
    matrix, box = augment.affine_matrix(each(-20.0)), (place, place, centre * 2, centre * 2)
    return {
        "crop": (
            lambda images: augment.crop(images, place, place, 4),
            lambda image: F.crop(F.pad(image, [4] * 4), 2, 2, 32, 32),
        ),
        "flip": (lambda images: augment.flip(images, place > 0), F.horizontal_flip),
        "cutout": (
            lambda images: augment.cutout(images, centre, centre, 16),
            lambda image: F.erase(image, 4, 4, 16, 16, torch.zeros(1, dtype=torch.uint8)),
        ),
        "affine": (
            lambda images: augment.affine(images, matrix),
            lambda image: F.rotate(image, 20.0),
        ),
        "resized_crop": (
            lambda images: augment.resized_crop(images, *box),
            lambda image: F.resized_crop(image, 2, 2, 24, 24, [32, 32]),
        ),
        "brightness": (
            lambda images: augment.brightness(images, factor),
            lambda image: F.adjust_brightness(image, 1.3),
        ),
        "contrast": (
            lambda images: augment.contrast(images, factor),
            lambda image: F.adjust_contrast(image, 1.3),
        ),
        "saturation": (
            lambda images: augment.saturation(images, factor),
            lambda image: F.adjust_saturation(image, 1.3),
        ),
        "hue": (
            lambda images: augment.hue(images, factor - 1),
            lambda image: F.adjust_hue(image, 0.3),
        ),
        "sharpness": (
            lambda images: augment.sharpness(images, factor),
            lambda image: F.adjust_sharpness(image, 1.3),
        ),
        "gaussian_blur": (
            lambda images: augment.gaussian_blur(images, factor, 3),
            lambda image: F.gaussian_blur(image, [3, 3], [1.3, 1.3]),
        ),
        "posterize": (
            lambda images: augment.posterize(images, place),
            lambda image: F.posterize(image, 2),
        ),
        "solarize": (
            lambda images: augment.solarize(images, factor * 100),
            lambda image: F.solarize(image, 130.0),
        ),
        "autocontrast": (augment.autocontrast, F.autocontrast),
        "equalize": (augment.equalize, F.equalize),
        "invert": (augment.invert, F.invert),
        "greyscale": (augment.greyscale, lambda image: F.rgb_to_grayscale(image, 3)),
    }


def interleaved(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in every round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()

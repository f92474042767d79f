"""`longtail data check`: near-duplicates found and falsely found, time and memory.

    python bench/check.py [--cifar data/cifar-100-python] [--files 200000] [--rows 5000000]
        [--classes 50000] [--parts copies folder table classes] [--out results/check.json]

- copies: 200 re-encoded, resized or lightly cropped copies among 5,000 pictures. The pictures are
  test images of CIFAR-100, on which the thresholds were not chosen, or synthetic ones without
  `--cifar`. A pair of two originals counts as falsely found although it may be a real duplicate.
- time: seconds for the same 5,000, reading and comparing, and the two extrapolated to 100,000:
  reading grows with the number of pictures, comparing with its square.
- folder, table, classes: `data check` on a folder of small files, on a table of many rows whose
  files are not opened, and on a folder of many classes, each in its own process. The machine may be
  shared, so both processor and wall-clock seconds are given.

`--parts` repeats some of these measurements; the rest of the result file is kept.
"""

import argparse
import os
import pickle
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from listfile import measure
from longtail.data.duplicates import Fingerprints, similar_pairs
from longtail.files import read_values, write_json
from longtail.training.run import environment
from made_tree import make_jpegs

PICTURES, COPIES = 5_000, 200
PARTS = ("copies", "folder", "table", "classes")
KINDS = ("re-encoded", "resized", "cropped")
CHECK = """
from longtail.data import DataConfig, check_source
import warnings; warnings.simplefilter("ignore")
print(check_source(DataConfig(sys.argv[1], check={check!r}), verbose=False).checked)
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cifar", type=Path)
    options.add_argument("--files", type=int, default=200_000)
    options.add_argument("--rows", type=int, default=5_000_000)
    options.add_argument("--classes", type=int, default=50_000)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options.add_argument("--out", type=Path, default=Path("results/check.json"))
    given = options.parse_args()
    result = read_values(given.out) if given.out.is_file() else {}
    result["environment"] = environment()
    if "copies" in given.parts:
        result["copies"] = copies(given.cifar)
    for name, make, count, check in (
        ("folder", make_folder, given.files, "decode"),
        ("table", make_table, given.rows, "exists"),
        ("classes", make_classes, given.classes, "exists"),
    ):
        if name in given.parts:
            with tempfile.TemporaryDirectory() as place:
                source = make(Path(place), count)
                result[name] = {"count": count, **measure(CHECK.format(check=check), str(source))}
            write_json(given.out, result)


def copies(cifar: Path | None) -> dict[str, object]:
    """Hides changed copies among pictures and looks for them."""
    generator = np.random.RandomState(0)
    pictures = originals(cifar)
    chosen = generator.choice(len(pictures), COPIES, replace=False).tolist()
    changed = [change(pictures[s], KINDS[n % 3], generator) for n, s in enumerate(chosen)]
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for n, image in enumerate(pictures + changed):
            paths.append(f"{folder}/{n}.{'png' if n < len(pictures) else 'jpg'}")
            image.save(paths[-1], quality=int(generator.choice([60, 75, 90])))
        fingerprints = Fingerprints.empty(len(paths))
        began = time.process_time()
        for n, path in enumerate(paths):
            fingerprints.read(n, path)
        reading = time.process_time() - began
    began = time.process_time()
    blocks = list(similar_pairs(fingerprints, np.arange(len(paths))))
    comparing = time.process_time() - began
    pairs = {(int(a), int(b)) for one, other in blocks for a, b in zip(one, other, strict=True)}
    wanted = {(s, len(pictures) + n): KINDS[n % 3] for n, s in enumerate(chosen)}
    found = [wanted[pair] for pair in pairs if pair in wanted]
    scale = 100_000 / len(paths)
    return {
        "pictures": "CIFAR-100, test images" if cifar else "made up",
        "originals": len(pictures),
        "copies": {kind: list(wanted.values()).count(kind) for kind in KINDS},
        "found": {kind: found.count(kind) for kind in KINDS},
        "falsely_found_pairs": sum(max(pair) < len(pictures) for pair in pairs),
        "reading_seconds": round(reading, 2),
        "comparing_seconds": round(comparing, 2),
        "extrapolated_to_100000": {
            "reading_seconds": round(reading * scale, 1),
            "comparing_seconds": round(comparing * scale**2, 1),
        },
    }


def originals(cifar: Path | None) -> list[Image.Image]:
    """The pictures in which copies are hidden."""
    if cifar is None:
        generator = np.random.RandomState(1)
        noise = generator.randint(0, 256, (PICTURES, 12, 16, 3)).astype(np.uint8)
        return [Image.fromarray(n).resize((160, 120), Image.Resampling.BICUBIC) for n in noise]
    with (cifar / "test").open("rb") as file:
        data = pickle.load(file, encoding="latin1")["data"][:PICTURES]
    return [Image.fromarray(image) for image in data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)]


def change(image: Image.Image, kind: str, generator: np.random.RandomState) -> Image.Image:
    """A copy that is only re-encoded, or resized, or cropped by up to 5 % on each side."""
    width, height = image.size
    if kind == "resized":
        factor = generator.choice([0.5, 0.75, 1.5, 2.0])
        size = round(width * factor), round(height * factor)
        return image.resize(size, Image.Resampling.BICUBIC)
    if kind == "cropped":
        left, top, right, low = generator.uniform(0, 0.05, 4)
        box = left * width, top * height, width * (1 - right), height * (1 - low)
        return image.crop(tuple(map(round, box)))
    return image


def make_folder(place: Path, count: int) -> Path:
    """Links to 64 small JPEGs in 1,000 classes, half of them in a training split."""
    sources = make_jpegs(place, 64, (64, 48))
    for n in range(count):
        target = place / "set" / ("train" if n % 2 else "test") / f"{n // 2 % 1000}"
        target.mkdir(parents=True, exist_ok=True)
        os.link(sources[n % len(sources)], target / f"{n}.jpg")
    return place / "set"


def make_table(place: Path, count: int) -> Path:
    """A table of rows whose paths all lead to 1,000 files, by different names of their folder."""
    with (place / "t.csv").open("w", encoding="utf-8") as file:
        file.write("path,label,split\n")
        for n in range(count):
            split = "test" if n % 10 == 0 else "train"
            file.write(f"images/{n // 1000:04d}/{n:07d}.jpg,class {n // 10 % 1000},{split}\n")
    return place / "t.csv"


def make_classes(place: Path, count: int) -> Path:
    """A folder of classes with three files each, which are links."""
    source = make_jpegs(place, 1, (64, 48))[0].read_bytes()
    for n in range(count):
        target = place / "set" / f"class {n:05d}"
        target.mkdir(parents=True)
        (target / "0.jpg").write_bytes(source)
        os.link(target / "0.jpg", target / "1.jpg")
        os.link(target / "0.jpg", target / "2.jpg")
    return place / "set"


if __name__ == "__main__":
    main()

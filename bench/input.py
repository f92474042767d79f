"""Images per second from JPEG files to batches on the device, compared with bare decoding.

    python bench/input.py [--workers 0 1 2] [--rounds 6] [--out results/input.json]

Three speeds for each method's views and each number of workers, in turn, round after round; the
shares are medians of the rounds' ratios:
- limit: Pillow alone, in as many processes: decode as small as the crops allow, cut and resize a
  random box for each view, make an array of it;
- crops: what `longtail train` reads: the same, in batches on the device;
- views: the same, and the rest of each view drawn there, which a GPU does in parallel with
  training; in two rounds only, since it is slow on a processor. If there are more processes than
  cores, they share them. With 0 workers all is done in one process and its processor seconds are
  counted, so that other work on the machine does not matter.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from longtail.augment import make_views, named_view
from longtail.data import RandomCrops, Split, WorkerLoader
from longtail.files import write_json
from longtail.recipes import find_recipe
from longtail.training.run import environment
from made_tree import make_jpegs

FILES, BATCH, SIZE = 96, 32, 224
SLOW_ROUNDS = 2
METHODS = {"ce": 1, "gml": 3}  # with as many views


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--out", type=Path, default=Path("results/input.json"))
    given = options.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        paths = tuple(map(str, make_jpegs(Path(folder), FILES, (500, 375))))
        kilobytes = sum(os.path.getsize(path) for path in paths) / FILES / 1e3
        rows = [
            measure(paths, method, workers, given.rounds, device)
            for method in METHODS
            for workers in given.workers
        ]
    about = {
        "environment": environment(),
        "cores": len(os.sched_getaffinity(0)),
        "device": device,
        "image": {"width": 500, "height": 375, "kilobytes": round(kilobytes, 1)},
        "rounds": given.rounds,
    }
    write_json(given.out, {**about, "inputs": rows})


def measure(
    paths: tuple[str, ...], method: str, workers: int, rounds: int, device: str
) -> dict[str, object]:
    """Speeds of one method's views with some workers."""
    names = find_recipe("imagenet-lt", method).settings["views"]
    names = [names] if isinstance(names, str) else names
    crops, rest = zip(*(named_view(name, SIZE).apart() for name in names), strict=True)
    generator = torch.Generator().manual_seed(0)
    split = Split(torch.zeros(FILES, dtype=torch.int64), torch.arange(FILES), None, paths)
    loader = WorkerLoader(
        split,
        BATCH,
        transform=RandomCrops(SIZE, tuple(crop.scale for crop in crops)),
        sampler="shuffle",
        device=device,
        workers=workers,
    )

    def crops(number: int) -> None:
        for _ in loader.epoch(number):
            pass

    def views(number: int) -> None:
        for batch in loader.epoch(number):
            if len(rest) == 1:
                make_views(batch.images, rest, generator)
            else:
                for view, images in zip(rest, batch.images, strict=True):
                    view(images, generator)

    work = [(path, len(rest)) for path in paths]
    clock = time.perf_counter if workers else time.process_time
    with multiprocessing.get_context("fork").Pool(max(1, workers)) as pool:

        def limit(number: int) -> None:
            if workers:
                pool.map(decode, work, chunksize=BATCH)
            else:
                list(map(decode, work))

        timed: dict[str, list[float]] = {"limit": [], "crops": [], "views": []}
        speeds: dict[str, Callable[[int], None]] = {"limit": limit, "crops": crops, "views": views}
        for number in range(rounds + 1):  # the first starts the processes and fills the caches
            for name, run in speeds.items():
                if name == "views" and number > SLOW_ROUNDS:
                    continue
                began = clock()
                run(number)
                if number:
                    timed[name].append(FILES / (clock() - began))
    shares = {
        f"{name}_over_limit": statistics.median(
            own / bare for own, bare in zip(timed[name], timed["limit"], strict=False)
        )
        for name in ("crops", "views")
    }
    medians = {f"{name}_per_second": statistics.median(v) for name, v in timed.items()}
    row = {"method": method, "views": len(rest), "workers": workers}
    row["clock"] = "wall" if workers else "process"
    row |= {name: round(value, 3) for name, value in {**medians, **shares}.items()}
    print(row)
    return row


def decode(work: tuple[str, int]) -> int:
    """Pillow alone: random boxes of 8% to 100% of the area, the file decoded once for all."""
    path, views = work
    generator = np.random.default_rng(hash(path) % 2**32)
    with Image.open(path) as image:
        width, height = image.size
        area = generator.uniform(0.08, 1, views) * width * height
        sides = np.sqrt(area).clip(max=min(width, height))
        image.draft("RGB", (int(width * SIZE / min(sides)), int(height * SIZE / min(sides))))
        rgb = image.convert("RGB")
    shrunk = rgb.width / width
    total = 0
    for side in sides * shrunk:
        left, top = generator.uniform(0, rgb.width - side), generator.uniform(0, rgb.height - side)
        part = rgb.resize(
            (SIZE, SIZE), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
        )
        total += np.asarray(part).nbytes
    return total


if __name__ == "__main__":
    main()

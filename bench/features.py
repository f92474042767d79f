"""Images per second from JPEG files to features, compared with bare networks.

    python bench/features.py [--threads 1 2] [--rounds 3] [--out results/features.json]
    python bench/features.py --docs docs/pictures.md    # only writes the table of the result file

EfficientNet-Lite0 at 224 pixels on a CPU. Every round measures all rows in turn, each in its own
process. The ratios are medians of the rounds' ratios to onnxruntime, in wall-clock and in processor
time, which does not count other work of a shared machine.
- onnxruntime, torch, torch.compile: the network alone, on batches in memory (torch's without and
  with the memory settings that longtail makes);
- engine: files to features as in `longtail embed`, `advise` and the first stage of `train`;
- loader and torch: how `embed` worked before it used the engine.
The three sizes of JPEG files apply only to the rows that read files.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = {64: (64, 48), 500: (500, 375), 4000: (4000, 3000)}
FILES = {64: 128, 500: 128, 4000: 48}
IMAGES, SIDE = 64, 224  # of the rows that read no files
NETWORKS = ("onnxruntime", "torch", "torch, memory settings", "torch.compile, memory settings")
READERS = ("engine", "loader and torch")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rows", nargs="+", default=[*NETWORKS, *READERS])
    options.add_argument("--out", type=Path, default=Path("results/features.json"))
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        from pages import write_between

        write_between(given.docs, "bench/features.py", table(json.loads(given.out.read_text())))
        return
    from longtail.files import write_json
    from longtail.training.run import environment

    with tempfile.TemporaryDirectory() as folder:
        paths = {size: make_files(Path(folder), size) for size in SIZES}
        # The user's cache is not used; the exported network is made once.
        os.environ["LONGTAIL_CACHE"] = str(Path(folder) / "cache")
        rows = [(name, 0) for name in NETWORKS] + [(r, size) for r in READERS for size in SIZES]
        rows = [row for row in rows if row[0] in given.rows]
        found = []
        for threads in given.threads:
            measured: dict[tuple[str, int], list[dict[str, float]]] = {row: [] for row in rows}
            for _ in range(given.rounds):
                for row in rows:
                    measured[row].append(in_process(*row, threads, paths.get(row[1], ())))
            found += [summary(row, threads, measured) for row in rows]
            write_json(
                given.out,
                {
                    "command": "python bench/features.py",
                    "environment": environment(),
                    "rounds": given.rounds,
                    "rows": found,
                },
            )


def make_files(folder: Path, size: int) -> tuple[str, ...]:
    """JPEG files with the detail of photographs: smoothed noise."""
    random = np.random.default_rng(0)
    width, height = SIZES[size]
    paths = []
    for number in range(FILES[size]):
        path = folder / f"{size}-{number}.jpg"
        if number < 8:
            coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            image.save(path, quality=90)
        else:  # the same content again, in a file of its own
            path.write_bytes(Path(paths[number % 8]).read_bytes())
        paths.append(str(path))
    return tuple(paths)


def in_process(name: str, size: int, threads: int, paths: tuple[str, ...]) -> dict[str, float]:
    """Measures a row in a new process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (name, threads, paths))


def measure(name: str, threads: int, paths: tuple[str, ...]) -> dict[str, float]:
    """Images per second, seconds of the processor and page faults, after a first call."""
    import torch

    torch.set_num_threads(threads)
    run, images = (reader if paths else network)(name, threads, paths)
    run()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "images_per_second": images / seconds,
        "user_ms": 1e3 * (after.ru_utime - before.ru_utime) / images,
        "system_ms": 1e3 * (after.ru_stime - before.ru_stime) / images,
        "page_faults": (after.ru_minflt - before.ru_minflt) / images,
    }


def network(name: str, threads: int, paths: tuple[str, ...]) -> tuple[Any, int]:
    """The network alone, on one batch after the other."""
    import torch

    from longtail.features import keep_freed_memory
    from longtail.features.network import export_onnx
    from longtail.models import create_backbone

    model = create_backbone("efficientnet_lite0", pretrained=True).eval()
    batch = torch.randint(0, 256, (32, 3, SIDE, SIDE), dtype=torch.uint8)
    if name == "onnxruntime":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(export_onnx(model, SIDE), settings)
        array = batch.numpy()
        return lambda: [session.run(None, {"images": array}) for _ in range(IMAGES // 32)], IMAGES
    if "memory" in name:
        keep_freed_memory()
    if "compile" in name:
        model = torch.compile(model)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(IMAGES // 32):
                model(batch)

    return run, IMAGES


def reader(name: str, threads: int, paths: tuple[str, ...]) -> tuple[Any, int]:
    """Files to features."""
    import torch

    from longtail.data import CentreCrop, Split
    from longtail.features import extract, fastest
    from longtail.models import create_backbone
    from longtail.training import predict_logits
    from longtail.training.input import evaluation_loader

    model = create_backbone("efficientnet_lite0", pretrained=True).eval()
    count = len(paths)
    split = Split(torch.zeros(count, dtype=torch.int64), torch.arange(count), None, paths)
    crop = CentreCrop(SIDE)
    if name == "engine":
        found = fastest(model, SIDE, 10_000, torch.device("cpu"))
        return lambda: extract(found, split, crop, threads=threads), count
    loader = evaluation_loader(split, crop, torch.device("cpu"), 0)
    return lambda: predict_logits(model, loader), count


def summary(
    row: tuple[str, int], threads: int, measured: dict[tuple[str, int], list[dict[str, float]]]
) -> dict[str, Any]:
    """Medians over the rounds, and the ratio to onnxruntime in the same round."""
    own, bare = measured[row], measured["onnxruntime", 0]
    medians = {name: round(statistics.median(r[name] for r in own), 3) for name in own[0]}
    pairs = list(zip(own, bare, strict=True))
    ratios = {
        "seconds_over_onnxruntime": [
            b["images_per_second"] / a["images_per_second"] for a, b in pairs
        ],
        "processor_over_onnxruntime": [
            (a["user_ms"] + a["system_ms"]) / (b["user_ms"] + b["system_ms"]) for a, b in pairs
        ],
    }
    middle = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
    return {"row": row[0], "jpeg": row[1], "threads": threads, **medians, **middle}


def table(result: dict[str, Any]) -> list[str]:
    """Markdown lines."""
    lines = [
        "| threads | row | JPEG, pixels | images per second | time over onnxruntime | processor "
        "time over onnxruntime | user, ms | system, ms | page faults |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    columns = {
        "images_per_second": 0,
        "seconds_over_onnxruntime": 2,
        "processor_over_onnxruntime": 2,
        "user_ms": 1,
        "system_ms": 1,
    }
    for row in result["rows"]:
        cells = [row["threads"], row["row"], row["jpeg"] or "none"]
        cells += [f"{row[name]:.{digits}f}" for name, digits in columns.items()]
        lines += [f"| {' | '.join(map(str, cells))} | {row['page_faults']:.0f} |"]
    return lines


if __name__ == "__main__":
    main()

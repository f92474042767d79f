"""Images per second of `longtail predict` in one process and in two, on large JPEG files.

    python bench/devices.py [--images 200 400] [--rounds 3] [--out results/devices.json]
    python bench/devices.py --docs docs/processes.md    # only writes the table of the result file

A small network (8 pixels, in onnxruntime) predicts a table that repeats 48 files of 4000x3000
pixels, so that nearly all of the work is decoding. Each number of images, processes and threads
runs in its own program. Images per second exclude the start: the additional images of the larger
table, over its additional seconds. The growth of the first process's memory between the two is the
cost of the images.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from features import make_files
from longtail import api
from longtail.features import fastest
from longtail.files import write_json
from longtail.training import Run
from longtail.training.run import environment
from memory import resident
from pages import write_between
from predict import prepare

ROWS = ((1, 1), (1, 2), (2, 2))  # processes, threads of all of them together


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", nargs=2, type=int, default=[200, 400])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path, default=Path("results/devices.json"))
    options.add_argument("--docs", type=Path)
    options.add_argument("--work", type=Path)
    options.add_argument("--count", type=int)
    options.add_argument("--devices", type=int)
    given = options.parse_args()
    if given.docs:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        write_between(given.docs, "bench/devices.py", table(result["rows"]))
        return
    if given.work:  # one of the programs
        print(json.dumps(predict(given.work, given.count, given.devices)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), classes=10, name="smallnet", size=8)
        os.environ["LONGTAIL_CACHE"] = f"{folder}/cache"  # the user's is not used
        backbone = Run(Path(folder) / "run").model().backbone
        fastest(backbone, 8, 10**9, torch.device("cpu"), "32-true")  # exports it once
        names = [Path(path).name for path in make_files(Path(folder), 4000)]
        for count in given.images:
            rows = "".join(f"{names[n % len(names)]}\n" for n in range(count))
            (Path(folder) / f"{count}.csv").write_text(f"path\n{rows}")
        rounds = [
            [measured(folder, given.images, *row) for row in ROWS] for _ in range(given.rounds)
        ]
    rows = [summary(*row, [one[n] for one in rounds]) for n, row in enumerate(ROWS)]
    result = {"command": "python bench/devices.py", "environment": environment(), "rows": rows}
    print(json.dumps(result, indent=1))
    write_json(given.out, result)


def measured(folder: str, images: list[int], devices: int, threads: int) -> dict[str, float]:
    """Images per second of all processes, seconds of the start, and growth of the memory."""
    found = []
    for count in images:
        words = ["--work", folder, "--count", str(count), "--devices", str(devices)]
        done = subprocess.run(
            [sys.executable, __file__, *words],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    few, many = found
    speed = (images[1] - images[0]) / (many["seconds"] - few["seconds"])
    return {
        "images per second": speed,
        "start, seconds": few["seconds"] - images[0] / speed,
        "growth, megabytes": many["megabytes"] - few["megabytes"],
    }


def predict(work: Path, count: int, devices: int) -> dict[str, float]:
    """Seconds and largest memory of one prediction."""
    began = time.perf_counter()
    out = work / f"{count}-out.csv"
    api.predict(work / "run", work / f"{count}.csv", out=out, devices=devices, verbose=False)
    return {
        "seconds": time.perf_counter() - began,
        "megabytes": resident("VmHWM"),
    }


def summary(devices: int, threads: int, rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of the rounds."""
    medians = {name: round(statistics.median(r[name] for r in rounds), 1) for name in rounds[0]}
    return {"processes": devices, "threads": threads, **medians}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown lines."""
    lines = ["| processes | threads in all | images per second | ratio | start, s |"]
    lines += ["|---|---|---|---|---|"]
    for row in rows:
        ratio = row["images per second"] / rows[0]["images per second"]
        cells = [row["processes"], row["threads"], row["images per second"], f"{ratio:.2f}"]
        lines.append(f"| {' | '.join(map(str, [*cells, row['start, seconds']]))} |")
    return lines


if __name__ == "__main__":
    main()

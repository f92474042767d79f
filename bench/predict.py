"""Memory and speed of `longtail predict` on many small files and classes.

    python bench/predict.py [--images 10000 20000] [--classes 4000] [--out results/predict.json]
    python bench/predict.py --backbone efficientnet_lite0 --size 224
    python bench/predict.py --docs docs/pictures.md    # only writes the table of the result file

A network with random weights (by default that of digits-lt, for images of 8 pixels) and the given
number of classes predicts a table that repeats 500 files. Each number of images runs in its own
process, which reports its peak memory; the growth between the two is the cost of an image. Images
per second are compared with those of the same network in onnxruntime on pixels in memory. Results
of other networks stay in the result file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from longtail.features.network import OnnxNetwork, export_onnx
from longtail.files import write_json
from longtail.models import ImageClassifier, create_backbone, create_head
from longtail.training import Run, write_predictions
from longtail.training.run import environment
from memory import resident
from pages import write_between

FILES = 500


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", nargs=2, type=int, default=[10_000, 20_000])
    options.add_argument("--classes", type=int, default=4000)
    options.add_argument("--backbone", default="smallnet")
    options.add_argument("--size", type=int, default=8)
    options.add_argument("--out", type=Path, default=Path("results/predict.json"))
    options.add_argument("--work", type=Path)
    options.add_argument("--count", type=int)
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    if given.docs:
        result = json.loads(given.out.read_text(encoding="utf-8"))
        write_between(given.docs, "bench/predict.py", table(result))
        return
    torch.set_num_threads(1)
    if given.work:  # one of the processes
        print(json.dumps(predict(given.work, given.count)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bare = prepare(work, given.classes, given.backbone, given.size)
        rows = []
        for count in given.images:
            words = [sys.executable, __file__, "--work", folder, "--count", str(count)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    growth = rows[1]["megabytes"] - rows[0]["megabytes"]
    result = {
        "environment": environment(),
        "classes": given.classes,
        "rows": rows,
        "growth, megabytes": round(growth, 1),
        "onnxruntime on pixels in memory, images per second": bare,
    }
    print(json.dumps(result, indent=1))
    known = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
    write_json(given.out, {**known, f"{given.backbone}, {given.size} pixels": result})


def prepare(work: Path, classes: int, name: str, size: int) -> float:
    """Writes run and files; returns images per second of onnxruntime."""
    torch.manual_seed(0)
    backbone = create_backbone(name)
    model = ImageClassifier(backbone, create_head("linear", backbone.num_features, classes)).eval()
    run = Run.create(work / "run", {"task": "classification", "tune": "all"})
    card = {
        "data": "made",
        "method": "ce",
        "backbone": name,
        "head": "linear",
        "image_size": size,
        "margin": 1.0,
        "class_names": [f"class {number}" for number in range(classes)],
        "class_counts": [10] * classes,
        "expresses": "source",
    }
    run.save_model(model, card)
    write_json(run.folder / "metrics.json", {"selection": "last epoch"})
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (FILES, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        enlarged = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        enlarged.save(work / f"{number}.png")
    network = OnnxNetwork(export_onnx(model, size))
    count, times = (256, 20) if size <= 64 else (16, 5)
    images = random.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    network(images)
    began = time.perf_counter()
    for _ in range(times):
        network(images)
    return round(times * count / (time.perf_counter() - began))


def predict(work: Path, count: int) -> dict[str, Any]:
    """Predicts a number of rows; returns memory and seconds of this process."""
    table = work / f"{count}.csv"
    table.write_text("path\n" + "".join(f"{n % FILES}.png\n" for n in range(count)))
    began, processor = time.perf_counter(), time.process_time()
    found = write_predictions(Run(work / "run"), table, work / f"{count}-out.csv", top=5)
    seconds = time.perf_counter() - began
    return {
        "images": len(found),
        "megabytes": round(resident("VmHWM"), 1),
        "images per second": round(count / seconds),
        "images per second of processor time": round(count / (time.process_time() - processor)),
    }


def table(result: dict[str, Any]) -> list[str]:
    """Markdown lines."""
    lines = [
        "| network | images | memory, MB | images per second | per second of processor time "
        "| onnxruntime alone, images in memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in result.items():
        bare = found["onnxruntime on pixels in memory, images per second"]
        for row in found["rows"]:
            speeds = [row["images per second"], row["images per second of processor time"], bare]
            cells = [name, f"{row['images']:,}", str(row["megabytes"])]
            lines.append(f"| {' | '.join(cells + [f'{speed:,}' for speed in speeds])} |")
    return lines


if __name__ == "__main__":
    main()

"""The exported file compared with `longtail predict` on photographs of mixed sizes and modes.

    python bench/photographs.py RUN [FOLDER] [--out results/photographs.json]

RUN is a finished run. The photographs are crops of the two that come with scikit-learn, 40 to 1,280
pixels wide, as JPEG, PNG, grey, CMYK and with an EXIF rotation, and images from FOLDER, 50 in all.
Measured are, for each, the largest difference of a probability between onnxruntime on the file's
pixels and `longtail predict`, and the seconds of onnxruntime for one photograph, with and without
the resize.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from longtail.api import export, predict
from longtail.files import write_json
from longtail.training.run import environment

COUNT = 50
BOUND = 0.01


def make_photographs(folder: Path, extra: Path | None) -> list[Path]:
    """Writes the photographs; returns their files."""
    sources = [Image.fromarray(array) for array in load_sample_images().images]
    generator = np.random.default_rng(0)
    found = (
        sorted(extra.rglob("*.jpg"))[:: max(1, len(list(extra.rglob("*.jpg"))) // 10)][:10]
        if extra
        else []
    )
    files = list(found)
    for number in range(COUNT - len(found)):
        image = sources[number % 2]
        width, height = (int(v) for v in generator.integers(40, 427, 2))
        left, top = (
            int(generator.integers(0, 640 - width)),
            int(generator.integers(0, 427 - height + 1)),
        )
        image = image.crop((left, top, left + width, top + height))
        if number % 5 == 0:
            image = image.resize((3 * width, 3 * height), Image.Resampling.BICUBIC)
        kind = ("RGB", "RGB", "L", "CMYK", "turned")[number % 5]
        path = (
            folder / f"{number:02}-{kind}{'.png' if number % 3 == 0 and kind == 'RGB' else '.jpg'}"
        )
        if kind in ("L", "CMYK"):
            image = image.convert(kind)
        exif = Image.Exif()
        if kind == "turned":
            exif[0x0112] = 6
        image.save(path, exif=exif)
        files.append(path)
    return files


def pixels(path: Path) -> Any:
    """Pixels (1, 3, height, width) uint8, read with Pillow as by a user."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)[None])


def seconds(session: Any, images: Any, repeats: int = 10) -> float:
    """Median time of one call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(["probabilities"], {"images": images})
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("run", type=Path)
    options.add_argument("folder", type=Path, nargs="?")
    options.add_argument("--out", type=Path, default=Path("results/photographs.json"))
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_photographs(folder, given.folder)
        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            export(given.run, "onnx", folder / "model.onnx"),
            session_options,
            providers=["CPUExecutionProvider"],
        )
        card = session.get_modelmeta().custom_metadata_map
        size = json.loads(card["image_size"])
        wanted = predict(given.run, files).logits.double().softmax(1).numpy()
        differences, rows = [], []
        for path, expected in zip(files, wanted, strict=True):
            images = pixels(path)
            (found,) = session.run(["probabilities"], {"images": images})
            differences.append(float(np.abs(found[0] - expected).max()))
            rows.append(
                {
                    "photograph": path.name,
                    "height": images.shape[2],
                    "width": images.shape[3],
                    "difference": differences[-1],
                }
            )
        times = {
            f"{h} x {w}": seconds(session, np.zeros((1, 3, h, w), dtype=np.uint8))
            for h, w in ((size, size), (427, 640), (3000, 4000))
        }
    print(
        f"{len(files)} photographs: largest difference of a probability {max(differences):.2g}, "
        f"median {statistics.median(differences):.2g}"
    )
    for shape, time_ in times.items():
        print(f"{shape}: {time_:.3f} s")
    write_json(
        given.out,
        {
            "environment": environment(),
            "model": {
                name: json.loads(card[name]) for name in ("backbone", "image_size", "margin")
            },
            "threads": torch.get_num_threads(),
            "bound": BOUND,
            "largest_difference": max(differences),
            "median_difference": statistics.median(differences),
            "seconds": times,
            "photographs": rows,
        },
    )
    assert max(differences) <= BOUND, max(differences)


if __name__ == "__main__":
    main()

"""Time and memory of the GML step for pixels over the cross-entropy step.

    python bench/segmentation.py [--rounds 15] [--out results/segmentation_step.json]

The same network, batch and precision, random scenes in which every class is in every image. The
steps are timed in turn in one process, and the ratio is the median of the rounds' ratios; on a
shared machine, `--clock process` counts processor seconds instead of wall-clock time. Peak memory
is measured in a separate process for each method: resident memory above that before the first step
on the CPU, allocated memory on a GPU.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric

from longtail.files import write_json
from longtail.prior import ClassPrior
from longtail.segmentation import PixelConfig, PixelDataConfig, create_dense_backbone
from longtail.segmentation.methods import create_pixel_method
from longtail.training.input import TrainingBatch
from longtail.training.loop import train_step
from longtail.training.optim import make_optimizer
from longtail.training.run import environment
from memory import resident
from pages import write_between

CLASSES = 11
CASES = {"240x180": (8, 180, 240), "512x512": (4, 512, 512)}  # images, height, width
WARM_UP, MEMORY_STEPS = 2, 6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--precision", default="bf16-mixed")
    options.add_argument("--clock", choices=("wall", "process"), default="wall")
    options.add_argument("--out", type=Path, default=Path("results/segmentation_step.json"))
    options.add_argument("--page", type=Path, help="page to write the table into")
    options.add_argument("--peak", nargs=2, metavar=("METHOD", "CASE"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.peak:
        print(peak(*given.peak, given.precision))
        return
    rows = [measure(case, given) for case in CASES]
    about = {
        "environment": environment(),
        "precision": given.precision,
        "rounds": given.rounds,
        "clock": given.clock,
    }
    write_json(given.out, {**about, "steps": rows})
    if given.page:
        write_between(given.page, "bench/segmentation.py", table(rows, given.clock))
    print(f"written: {given.out}")


def table(rows: list[dict[str, object]], clock: str) -> list[str]:
    """The ratios in Markdown."""
    lines = [
        "| GML step over cross-entropy step | time | peak memory |",
        "|---|---|---|",
        *(
            f"| {row['images']} images of {row['case']} | {row['time_ratio']:.2f} "
            f"| {row['memory_ratio']:.2f} |"
            for row in rows
        ),
    ]
    about = (
        f"`small_unet`, random scenes, {clock} clock, one machine: `python bench/segmentation.py`."
    )
    return [*lines, "", about]


def make_step(name: str, case: str, precision: str) -> tuple[Callable[[], None], torch.device]:
    """One training step of a method on random scenes."""
    torch.manual_seed(0)
    images, height, width = CASES[case]
    prior = ClassPrior([int(1e6 * 0.5**c) for c in range(CLASSES)])
    presence = ClassPrior([400 - 20 * c for c in range(CLASSES)])
    backbone = create_dense_backbone("small_unet")
    method = create_pixel_method(name, {}, prior, presence, backbone)
    config = PixelConfig(data=PixelDataConfig("camvid"), method={"name": name})
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)  # type: ignore[arg-type]
    model, optimizer = fabric.setup(method, make_optimizer(method, config))
    model.train()
    blocks = torch.rand(images, 1, 12, 16).argsort(-1) % CLASSES  # of a scene's parts
    target = torch.nn.functional.interpolate(blocks.float(), size=(height, width))[:, 0].long()
    batch = TrainingBatch(
        torch.randint(0, 256, (1, images, 3, height, width), dtype=torch.uint8).to(fabric.device),
        target.to(fabric.device),
        torch.arange(images, device=fabric.device),
    )

    def step() -> None:
        train_step(fabric, model, optimizer, batch)

    return step, fabric.device


def measure(case: str, given: argparse.Namespace) -> dict[str, object]:
    """Seconds and peak memory of both methods at one size."""
    clock = time.process_time if given.clock == "process" else time.perf_counter
    steps = {name: make_step(name, case, given.precision) for name in ("ce", "gml")}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + given.rounds):
        for name, (step, device) in steps.items():
            began = clock()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                seconds[name].append(clock() - began)
    ratios = [gml / ce for ce, gml in zip(seconds["ce"], seconds["gml"], strict=True)]
    memory = {name: _peak_of(name, case, given.precision) for name in steps}
    images, height, width = CASES[case]
    row = {
        "case": case,
        "images": images,
        "size": [height, width],
        **{f"{name}_ms": round(1e3 * statistics.median(s), 1) for name, s in seconds.items()},
        "time_ratio": round(statistics.median(ratios), 3),
        **{f"{name}_peak_mib": round(m / 2**20, 1) for name, m in memory.items()},
        "memory_ratio": round(memory["gml"] / memory["ce"], 3),
    }
    print(row)
    return row


def _peak_of(name: str, case: str, precision: str) -> float:
    """Peak memory of a few steps in a separate process, bytes."""
    command = [sys.executable, __file__, "--precision", precision, "--peak", name, case]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def peak(name: str, case: str, precision: str) -> float:
    """Peak memory of a few steps above the memory before, bytes."""
    step, device = make_step(name, case, precision)
    if device.type == "cuda":
        for _ in range(MEMORY_STEPS):
            step()
        return float(torch.cuda.max_memory_allocated())
    before = resident()
    for _ in range(MEMORY_STEPS):
        step()
    return (resident("VmHWM") - before) * 2**20


if __name__ == "__main__":
    main()

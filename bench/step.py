"""Images per second of the whole training step beside the bare network on the same views.

    python bench/step.py [--methods ce logit_adjust gml] [--rounds 15] [--out results/step.json]

The limit is what no pipeline can avoid: forward and backward of the views that the student sees,
and the forward pass of those that the teacher sees, same batch, same precision, in the same
process. Step and limit are timed in turn; the share is the median of the rounds' ratios. On a
machine that others use as well, `--clock process` counts processor seconds instead of the wall's.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric

from longtail.augment import named_view
from longtail.data import Batch, DataConfig
from longtail.files import write_text
from longtail.methods import create_method
from longtail.models import CosineHead, ImageClassifier, create_backbone
from longtail.prior import ClassPrior
from longtail.recipes import find_recipe
from longtail.training import Config
from longtail.training.loop import train_step
from longtail.training.optim import make_optimizer
from longtail.training.run import environment

CLASSES = 100


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--methods", nargs="+", default=["ce", "logit_adjust", "gml"])
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--precision", default="bf16-mixed")
    options.add_argument("--clock", choices=["wall", "process"], default="wall")
    options.add_argument("--out", type=Path, default=Path("results/step.json"))
    given = options.parse_args()
    rows = [
        measure(name, given.batch_size, given.precision, given.rounds, given.clock)
        for name in given.methods
    ]
    about = {
        "environment": environment(),
        "precision": given.precision,
        "rounds": given.rounds,
        "clock": given.clock,
    }
    write_text(given.out, json.dumps({**about, "steps": rows}, indent=1) + "\n")
    print(f"written: {given.out}")


def measure(
    name: str, batch_size: int, precision: str, rounds: int, clock: str
) -> dict[str, object]:
    """Step and limit of one method with its CIFAR-100-LT recipe."""
    torch.manual_seed(0)
    settings = dict(find_recipe("cifar100-lt", name).settings)
    method_settings = settings.pop("method", {})
    config = Config(data=DataConfig("cifar100-lt"), method={"name": name}, **settings)
    prior = ClassPrior([int(500 * 0.01 ** (c / 99)) for c in range(CLASSES)])
    teacher = None
    if config.teacher == "train":
        backbone = create_backbone("resnet56")
        teacher = ImageClassifier(backbone, CosineHead(backbone.num_features, CLASSES)).eval()
    student = create_backbone("resnet32")
    method = create_method(name, method_settings, prior, student, teacher)
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)  # type: ignore[arg-type]
    optimizer = make_optimizer(method, config)
    model, wrapped = fabric.setup(method, optimizer)
    model.train()
    generator = torch.Generator(fabric.device).manual_seed(0)
    views = [named_view(config.views[0], 32)] * method.num_views
    batch = Batch(
        torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8, device=fabric.device),
        torch.randint(0, CLASSES, (batch_size,), device=fabric.device),
        torch.arange(batch_size, device=fabric.device),
    )
    student_views = torch.cat([batch.images] * min(method.num_views, 2))

    def step() -> None:
        train_step(fabric, model, wrapped, batch, views, generator)

    def limit() -> None:
        with fabric.autocast():
            features = student(student_views)
            if teacher is not None:
                with torch.no_grad():
                    teacher.backbone(student_views)
        features.float().sum().backward()

    times = {"step": [], "limit": []}
    for turn in range(rounds + 2):
        for part, run in (("step", step), ("limit", limit)):
            seconds = timed(run, fabric.device, clock)
            if turn >= 2:  # the first two warm up
                times[part].append(seconds)
    step_s, limit_s = (statistics.median(times[part]) for part in ("step", "limit"))
    share = statistics.median(b / a for a, b in zip(times["step"], times["limit"], strict=True))
    row = {
        "method": name,
        "batch_size": batch_size,
        "views": config.views,
        "images_per_second": round(batch_size / step_s, 1),
        "step_ms": round(1000 * step_s, 1),
        "limit_ms": round(1000 * limit_s, 1),
        "share_of_limit": round(share, 3),
    }
    print(row)
    return row


def timed(run: Callable[[], None], device: torch.device, clock: str) -> float:
    now = time.process_time if clock == "process" else time.perf_counter
    began = now()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return now() - began


if __name__ == "__main__":
    main()

"""Images per second of the whole training step, compared with the bare network on the same views.

    python bench/step.py [--methods ce gml ...] [--rounds 15] [--out results/step.json]

Every method in its CIFAR-100-LT recipe. The limit is the work that no pipeline can avoid: forward
and backward pass of the views that train the network, and the forward pass of those that a teacher,
a momentum encoder or a fixed backbone sees, with the same batch and precision, in the same process.
Step and limit are timed in turn; the share is the median of the rounds' ratios. On a shared
machine, `--clock process` counts processor seconds instead of wall-clock time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from longtail.augment import named_view
from longtail.augment.batched import send
from longtail.data import Batch, DataConfig
from longtail.files import write_json
from longtail.memory import ClassQueue
from longtail.methods import Method, create_method, find_method, method_names
from longtail.models import CosineHead, ImageClassifier, LinearHead, create_backbone
from longtail.prior import ClassPrior
from longtail.recipes import find_recipe
from longtail.training import Config
from longtail.training.graphed import Gradients, compute_gradients
from longtail.training.input import MakeViews
from longtail.training.loop import train_step
from longtail.training.optim import make_optimizer
from longtail.training.run import environment

CLASSES = 100
# Views that are trained on, and views with only a forward pass (of a teacher, a momentum encoder, a
# fixed backbone); one trained view if a method is not listed.
PASSES = {
    "bcl": (3, 0),
    "proco": (3, 0),
    "supcon_features": (2, 0),
    "paco": (1, 1),
    "gml": (2, 2),
    "crt": (0, 1),
    "lws": (0, 1),
}
TRAINING = [name for name in method_names() if name not in ("supcon", "tau_norm", "reweighted")]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--methods", nargs="+", default=TRAINING)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--precision", default="bf16-mixed")
    options.add_argument("--clock", choices=["wall", "process"], default="wall")
    options.add_argument("--profile", action="store_true", help="shares of operations instead")
    options.add_argument("--out", type=Path, help="results/step.json, or step_profile.json")
    given = options.parse_args()
    if given.profile:
        rows = [profile(name, given.precision, given.rounds) for name in given.methods]
        out = given.out or Path("results/step_profile.json")
        about = {"environment": environment(), "precision": given.precision}
        write_json(out, {**about, "rounds": given.rounds, "steps": rows})
        return
    rows = [measure(name, given.precision, given.rounds, given.clock) for name in given.methods]
    about = {
        "environment": environment(),
        "precision": given.precision,
        "rounds": given.rounds,
        "clock": given.clock,
    }
    out = given.out or Path("results/step.json")
    write_json(out, {**about, "steps": rows})
    print(f"written: {out}")


@dataclass
class Case:
    """One method with its CIFAR-100-LT recipe: its step, and the limit."""

    config: Config
    device: torch.device
    method: Method
    step: Callable[..., dict[str, Tensor]]
    limit: Callable[[], None]


def make(name: str, precision: str, batch_size: int | None = None) -> Case:
    torch.manual_seed(0)
    settings = dict(find_recipe("cifar100-lt", name).settings)
    method_settings = settings.pop("method", {})
    config = Config(data=DataConfig("cifar100-lt"), method={"name": name}, **settings)
    prior = ClassPrior([int(500 * 0.01 ** (c / 99)) for c in range(CLASSES)])
    student = create_backbone(config.backbone if config.backbone != "auto" else "resnet32")
    earlier = None
    if config.teacher == "train":
        backbone = create_backbone("resnet56")
        earlier = ImageClassifier(backbone, CosineHead(backbone.num_features, CLASSES)).eval()
    elif getattr(find_method(name), "first_method", ""):
        earlier = ImageClassifier(student, LinearHead(student.num_features, CLASSES)).eval()
    fixed = (earlier.backbone if earlier else student).for_inference()
    method = create_method(name, method_settings, prior, student, earlier)
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)  # type: ignore[arg-type]
    fixed.to(fabric.device)
    optimizer = make_optimizer(method, config)
    model, wrapped = fabric.setup(method, optimizer)
    model.train()
    fill_queue(method, prior)
    generator = torch.Generator().manual_seed(0)
    views = [named_view(view, 32) for view in config.views]
    make = MakeViews(tuple(views * method.num_views if len(views) == 1 else views))
    batch_size = batch_size or config.batch_size
    batch = Batch(
        torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8, device=fabric.device),
        torch.randint(0, CLASSES, (batch_size,), device=fabric.device),
        torch.arange(batch_size, device=fabric.device),
    )
    trained, passing = PASSES.get(name, (1, 0))
    images = torch.cat([batch.images] * max(trained, passing))

    def step(gradients: Gradients = compute_gradients) -> dict[str, Tensor]:
        drawn = make(batch.images.shape, generator)
        parameters = iter(send(drawn.parameters, fabric.device))
        return train_step(fabric, model, wrapped, drawn.apply(batch, parameters), gradients)

    def limit() -> None:
        with fabric.autocast():
            if passing:
                with torch.no_grad():
                    fixed(images[: passing * batch_size])
            if trained:
                student(images[: trained * batch_size]).float().sum().backward()

    return Case(config, fabric.device, method, step, limit)


def fill_queue(method: Method, prior: ClassPrior) -> None:
    """Fills a class-wise queue, as after the first epochs."""
    queue = getattr(method, "queue", None)
    if isinstance(queue, ClassQueue):
        labels = torch.arange(CLASSES).repeat_interleave(prior.counts).to(queue.labels.device)
        keys = torch.randn(len(labels), queue.features.shape[1], device=labels.device)
        queue.enqueue(keys, labels, torch.arange(len(labels), device=labels.device))


def measure(name: str, precision: str, rounds: int, clock: str) -> dict[str, object]:
    """Step and limit of a method in turn."""
    case = make(name, precision)
    batch_size = case.config.batch_size
    times: dict[str, list[float]] = {"step": [], "limit": []}
    for turn in range(rounds + 2):
        for part, run in (("step", case.step), ("limit", case.limit)):
            seconds = timed(run, case.device, clock)
            if turn >= 2:  # the first two warm up
                times[part].append(seconds)
    step_s, limit_s = (statistics.median(times[part]) for part in ("step", "limit"))
    share = statistics.median(b / a for a, b in zip(times["step"], times["limit"], strict=True))
    row = {
        "method": name,
        "batch_size": batch_size,
        "views": case.config.views,
        "images_per_second": round(batch_size / step_s, 1),
        "step_ms": round(1000 * step_s, 1),
        "limit_ms": round(1000 * limit_s, 1),
        "share_of_limit": round(share, 3),
    }
    print(row)
    return row


def profile(name: str, precision: str, rounds: int) -> dict[str, object]:
    """Shares of a step's time by operation, percent, the largest first."""
    case = make(name, precision)
    case.step()
    with torch.profiler.profile() as watch:
        for _ in range(rounds):
            case.step()
    events, on_gpu = watch.key_averages(), case.device.type == "cuda"
    times = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in events
        if not on_gpu or event.device_type == torch.autograd.DeviceType.CUDA
    }
    total = sum(times.values())
    largest = sorted(times, key=times.__getitem__, reverse=True)[:15]
    row = {"method": name, "percent": {k: round(100 * times[k] / total, 1) for k in largest}}
    print(row)
    return row


def timed(run: Callable[[], object], device: torch.device, clock: str) -> float:
    now = time.process_time if clock == "process" else time.perf_counter
    began = now()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return now() - began


if __name__ == "__main__":
    main()

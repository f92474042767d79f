"""The first minutes on a GPU: what works, what it costs, and as much training as fits.

    python bench/gpu.py --data FOLDER [--out results/gpu] [--budget 480] [--stages start step ...]

FOLDER has CIFAR-100 as `train_lt.npz`, `test.npz` and `imbalance_100.index.txt`. Every stage is a
process with its own time limit, which writes its JSON file after each row, so that a failed or
unfinished stage does not affect the others. `--tiny` runs everything at test sizes, on any device.

- start: versions, device, time to import.
- agree: loss and gradients of every method against those in float64 on the CPU; views on both.
- scores: class scores against their matrix products: agreement, determinism, time, memory.
- waits: whether a step of any method makes the host wait.
- step: milliseconds, launches and busy share of a step: computed and recorded, 32 and 16 bits.
- train: whole training runs in parallel, as many as fit into the budget.
"""

import argparse
import copy
import io
import json
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()
LIMITS = {"start": 40, "agree": 90, "scores": 60, "waits": 60, "step": 90}  # seconds
METHODS = ("lade", "ce", "logit_adjust", "bcl", "gml")
SCORES = ((128, 4096, 100, 32), (128, 16384, 1000, 1024), (128, 32768, 8142, 1024))
LARGE_SCORES = (1024, 1_000_000, 1000, 128)  # batch, keys, classes, width


class Rows:
    """The JSON file of one stage, written anew with every row."""

    def __init__(self, path: Path) -> None:
        from longtail.training.environment import environment

        self.path, self.rows = path, list[dict[str, Any]]()
        self.about = {"environment": environment(), "seed": 0}

    def add(self, **row: Any) -> None:
        """Adds a row and writes the file."""
        from longtail.files import write_json

        self.rows.append(row)
        seconds = round(time.perf_counter() - BEGAN, 1)
        write_json(self.path, {**self.about, "seconds": seconds, "rows": self.rows})
        print(json.dumps(row), flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, default=Path("results/gpu"))
    options.add_argument("--budget", type=float, default=480.0, help="seconds for everything")
    options.add_argument("--stages", nargs="+", default=[*LIMITS, "train"])
    options.add_argument("--methods", nargs="+", default=METHODS)
    options.add_argument("--tiny", action="store_true")
    options.add_argument("--only", help="run this stage, or train:METHOD, in this process")
    given = options.parse_args()
    if given.only:
        name, _, method = given.only.partition(":")
        rows = Rows(given.out / f"{given.only.replace(':', '-')}.json")
        train(rows, given, method) if method else STAGES[name](rows, given)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    deadline = time.perf_counter() + given.budget
    for stage in given.stages:
        left = deadline - time.perf_counter() - 10  # to end training
        if stage == "train":
            in_processes([f"train:{name}" for name in given.methods], left, given)
        else:
            in_processes([stage], min(LIMITS[stage], left), given)


def in_processes(names: Sequence[str], limit: float, given: argparse.Namespace) -> None:
    """Runs stages in parallel; one that fails or is late says so in its file."""
    if limit <= 0:
        print(f"no time left for {', '.join(names)}")
        return
    end, paths = time.perf_counter() + limit, {n: given.out / n.replace(":", "-") for n in names}
    logs = {name: path.with_suffix(".log") for name, path in paths.items()}
    running = {name: started(name, log) for name, log in logs.items()}
    late = [name for name, process in running.items() if not ended(process, end)]
    for name in late:
        running[name].send_signal(signal.SIGTERM)  # training saves its state
    for name, process in running.items():
        if not ended(process, end + 8):
            process.kill()
            process.wait()
        reason = f"not done within {limit:.3g} seconds; " if name in late else ""
        if reason or process.returncode:
            reason += logs[name].read_text().strip()[-2000:]
            path = paths[name].with_suffix(".json")
            written = json.loads(path.read_text()) if path.is_file() else {"rows": []}
            path.write_text(json.dumps({**written, "failed": reason}, indent=2) + "\n")
            print(f"{name}: {reason}")


def started(name: str, log: Path) -> "subprocess.Popen[bytes]":
    """The process of a stage, whose errors go into a file."""
    with log.open("w") as file:
        words = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        return subprocess.Popen(words, stderr=file)


def ended(process: "subprocess.Popen[bytes]", end: float) -> bool:
    """Waits for a process, at most until a time."""
    try:
        process.wait(max(0.1, end - time.perf_counter()))
    except subprocess.TimeoutExpired:
        return False
    return True


def start(rows: Rows, given: argparse.Namespace) -> None:
    import torch

    rows.add(seconds_to_import=round(time.perf_counter() - BEGAN, 2), cuda=torch.version.cuda)
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        gib = round(about.total_memory / 2**30, 1)
        rows.add(device=about.name, capability=f"{about.major}.{about.minor}", gib=gib)


def agree(rows: Rows, given: argparse.Namespace) -> None:
    """Relative differences from float64 on the CPU; at most 1e-4 is expected of the losses."""
    import torch

    from longtail.augment import VIEWS, make_views, named_view
    from step import TRAINING, make

    torch.backends.cudnn.allow_tf32 = False
    size, names = (4, ["ce"]) if given.tiny else (32, TRAINING)
    for name in names:
        case = make(name, "32-true", size)
        exact = copy.deepcopy(case.method).cpu().double()
        shape = (case.method.num_views, size, 3, 32, 32)
        views = torch.randint(0, 256, shape, dtype=torch.uint8)
        given_cpu = (views, torch.arange(size) % 100, torch.arange(size))
        found = {}
        for what, method in (("ours", case.method), ("exact", exact)):
            device = case.device if what == "ours" else torch.device("cpu")
            method.zero_grad()
            loss = method(*(tensor.to(device) for tensor in given_cpu))["loss"]
            loss.backward()
            grads = [p.grad.flatten() for p in method.parameters() if p.grad is not None]
            found[what] = (loss.detach().cpu().double(), torch.cat(grads).cpu().double())
        loss_error, gradient_error = (
            float((ours - truth).norm() / truth.norm().clamp(min=1e-30))
            for ours, truth in zip(found["ours"], found["exact"], strict=True)
        )
        rows.add(method=name, loss_error=loss_error, gradient_error=gradient_error)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8)
    for name in VIEWS:
        here, there = (
            make_views(part, [named_view(name, 32)], torch.Generator().manual_seed(0)).cpu()
            for part in (images, images.to(device))
        )
        off = (here.int() - there.int()).abs()
        rows.add(
            view=name, share_of_values_off=float((off > 0).float().mean()), most=int(off.max())
        )


def scores(rows: Rows, given: argparse.Namespace) -> None:
    """Class scores, forward and backward, compared with the three matrix products in them."""
    for shape in [(8, 64, 5, 4)] if given.tiny else [*SCORES, LARGE_SCORES]:
        rows.add(shape=shape, **score(*shape))


def score(batch: int, keys: int, classes: int, width: int) -> dict[str, Any]:
    import torch
    from torch.nn.functional import normalize

    from longtail.losses import class_scores

    torch.manual_seed(0)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    query = normalize(torch.randn(batch, width, device=device), dim=1).requires_grad_()
    key = normalize(torch.randn(keys, width, device=device), dim=1).requires_grad_()
    labels = torch.randint(classes, (keys,), device=device)
    upstream = torch.randn(batch, classes, device=device)

    def run() -> list[Any]:
        query.grad = key.grad = None
        value = class_scores(query, key, labels, classes, temperature=0.1)
        value.backward(torch.where(value.isfinite(), upstream, 0.0))
        return [value.detach(), query.grad, key.grad]

    def products() -> list[Any]:
        with torch.no_grad():
            similarity = query @ key.T
            return [similarity @ key, similarity.T @ query]

    once, again = run(), run()
    few = query.detach()[:4].double()
    exact = class_scores(few, key.detach().double(), labels, classes, temperature=0.1)
    error = (once[0][:4] - exact).nan_to_num(0, 0, 0).abs().max()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    ours, theirs = milliseconds(run, device, 10), milliseconds(products, device, 10)
    return {
        "error": float(error),
        "same_twice": all(torch.equal(a, b) for a, b in zip(once, again, strict=True)),
        "ms": ours,
        "products_ms": theirs,
        "ratio": round(ours / theirs, 2),
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
    }


def waits(rows: Rows, given: argparse.Namespace) -> None:
    import torch

    from step import TRAINING, make

    if not torch.cuda.is_available():
        rows.add(not_measured="no GPU")
        return
    for name in TRAINING:
        case = make(name, "bf16-mixed")
        for _ in range(3):
            case.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            case.step()
            reason = None
        except RuntimeError as error:
            reason = str(error)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        rows.add(method=name, waits=reason)


def step(rows: Rows, given: argparse.Namespace) -> None:
    """Each method computed and recorded; the losses of both ways after as many steps."""
    import torch

    from longtail.training.graphed import CudaRecorder, GraphedGradients, compute_gradients
    from step import make

    rounds, size = (3, 4) if given.tiny else (50, None)
    for name in ["gml"] if given.tiny else ["gml", "ce", "bcl", "proco", "lade", "paco"]:
        for precision in ("32-true", "bf16-mixed"):
            losses = []
            for recorded in (False, True):
                about = {"method": name, "precision": precision, "recorded": recorded}
                if recorded and not torch.cuda.is_available():
                    rows.add(**about, not_measured="no GPU")
                    continue
                case = make(name, precision, size)
                gradients = GraphedGradients(CudaRecorder()) if recorded else compute_gradients

                def run(case: Any = case, gradients: Any = gradients) -> Any:
                    return case.step(gradients)["loss"]

                with warnings.catch_warnings(record=True) as warned:
                    warnings.simplefilter("always")
                    for _ in range(6):  # past the recording
                        torch.manual_seed(0)
                        loss = run()
                losses.append(float(loss))
                row = {"ms": milliseconds(run, case.device, rounds), "loss": losses[-1]}
                texts = [str(warning.message) for warning in warned]
                rows.add(**about, **row, **launches(run, case.device), warned=texts)
            if len(losses) == 2:
                rows.add(method=name, precision=precision, losses_differ_by=losses[1] - losses[0])


def launches(run: Callable[[], Any], device: Any) -> dict[str, Any]:
    """Kernels of one step, and the share of its time in which one runs."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    if device.type != "cuda":
        return {}
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as watch:
        began = time.perf_counter()
        for _ in range(5):
            run()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    on_device = [
        event for event in watch.events() if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    busy = sum(event.time_range.elapsed_us() for event in on_device) / 1e6
    launched = [event for event in watch.events() if "Launch" in event.name]
    return {
        "kernels": len(on_device) / 5,
        "launches": len(launched) / 5,
        "busy": round(busy / seconds, 2),
    }


def milliseconds(run: Callable[[], Any], device: Any, rounds: int) -> float:
    """Median over rounds, each until the device is done, after two to warm up."""
    import torch

    times = []
    for turn in range(rounds + 2):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times += [1000 * (time.perf_counter() - began)] if turn >= 2 else []
    return round(statistics.median(times), 3)


def train(rows: Rows, given: argparse.Namespace, method: str) -> None:
    """One whole training run on CIFAR-100-LT at imbalance 100, by its recipe."""
    import longtail
    from longtail.training import Run

    few: dict[str, Any] = {"epochs": 1, "batch_size": 16, "backbone": "smallnet"}
    settings = {**few, "teacher": "none"} if given.tiny and method == "gml" else few
    folder = given.out / "runs" / method
    began = time.perf_counter()
    try:
        run: Any = longtail.train(
            cifar100(given.data),
            method,
            out=folder,
            verbose=False,
            **(settings if given.tiny else {}),
        )
    except SystemExit:  # asked to end: what was done so far
        for path in sorted(folder.rglob("config.yaml")):
            run = Run(path.parent)
            rows.add(run=str(path.parent.relative_to(given.out)), history=run.history[-3:])
        raise
    percent = {
        name: round(100 * run.metrics[name], 2)
        for name in ("accuracy", "many", "medium", "few", "ece")
    }
    rows.add(
        data="cifar100-lt",
        method=method,
        imbalance=100,
        epochs=len(run.history),
        **percent,
        minutes=round((time.perf_counter() - began) / 60, 2),
        images_per_second=round(run.history[-1]["images_per_second"]),
        precision=run.config["precision"],
        selection="last epoch",
        beside=[name for name in given.methods if name != method],
    )


def cifar100(folder: Path) -> Any:
    """CIFAR-100 at imbalance 100 from its packed files."""
    import numpy as np
    import torch

    from longtail.data import Dataset, Split

    kept = np.loadtxt(folder / "imbalance_100.index.txt", dtype=np.int64, ndmin=1)
    splits = []
    for name, file in (("train", "train_lt.npz"), ("test", "test.npz")):
        packed = np.load(folder / file)
        images, index = tiles(packed), packed["index"].astype(np.int64)
        chosen = np.isin(index, kept) if name == "train" else np.ones(len(index), bool)
        index = index[chosen]
        splits.append(
            Split(
                labels=torch.from_numpy(packed["labels"][chosen].astype(np.int64)),
                index=torch.from_numpy(index),
                images=torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).contiguous(),
                paths=tuple(f"cifar100/{name}/{i}" for i in index),
            )
        )
    classes = tuple(str(c) for c in range(int(splits[0].labels.max()) + 1))
    return Dataset("cifar100-lt", classes, splits[0], None, splits[1], 32)


def tiles(packed: Any) -> Any:
    """Images (N, 32, 32, 3) of the mosaics in a packed file."""
    import numpy as np
    from PIL import Image

    data, at, found = packed["webp"].tobytes(), 0, []
    for length in packed["lengths"]:
        mosaic = np.asarray(Image.open(io.BytesIO(data[at : at + int(length)])).convert("RGB"))
        rows = mosaic.reshape(len(mosaic) // 32, 32, -1, 32, 3)
        found.append(rows.transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3))
        at += int(length)
    return np.concatenate(found)[: int(packed["count"])]


STAGES: dict[str, Callable[[Rows, argparse.Namespace], None]] = {
    "start": start,
    "agree": agree,
    "scores": scores,
    "waits": waits,
    "step": step,
}

if __name__ == "__main__":
    main()

"""What holds for all tests."""

import os
import random
import resource
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longtail.methods import Method
from longtail.training.graphed import GraphedGradients, compute_gradients
from longtail.training.input import TrainingBatch
from longtail.training.loop import seed_step, train_step
from longtail.training.sharpness import SharpnessAware


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Features and exported networks of tests stay out of the cache of the user."""
    before = os.environ.get("LONGTAIL_CACHE")
    os.environ["LONGTAIL_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["LONGTAIL_CACHE"]
    if before is not None:
        os.environ["LONGTAIL_CACHE"] = before


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """Where `full_disk(n)` is entered, a file that grows beyond n bytes cannot be written."""

    @contextmanager
    def limited(most: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def huge_png() -> Callable[[Path], None]:
    """Writes a PNG file that says it has 20,000 x 20,000 pixels."""

    def write(path: Path) -> None:
        Image.new("1", (1, 1)).save(path)
        content = bytearray(path.read_bytes())
        content[16:24] = 2 * (20_000).to_bytes(4, "big")
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(content)

    return write


class Tape(TorchDispatchMode):
    """Operations as they were run: a replay runs them again, on the same tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns):
            self.operations.append((func, args, kwargs or {}, out))  # not of views: they follow
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.operations:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old is not new:
                    old.copy_(new)


class Foreign(TorchDispatchMode):
    """Collects the operations that see, or make, a tensor outside the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        if any(tensor.device.type != "cuda" for tensor in tensors):
            self.found.add(str(func))
        return out


class CpuRecorder:
    """Stands in for `CudaRecorder`: a recording repeats operations and no line of Python."""

    aside = nullcontext

    def __init__(self, method: nn.Module) -> None:
        self.method, self.recordings, self.replays = method, 0, 0

    def host_random(self) -> tuple[Any, ...]:  # torch's own generator is that of the device here
        return (random.getstate(),)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        kept = [buffer.clone() for buffer in self.method.buffers()]
        generator = torch.get_rng_state()
        with Tape() as tape:
            function()
        for buffer, old in zip(self.method.buffers(), kept, strict=True):
            buffer.copy_(old)  # a capture runs nothing
        torch.set_rng_state(generator)
        self.recordings += 1

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay


@dataclass
class Trained:
    """What a training leaves: all losses, the method, and how its steps were computed."""

    losses: list[dict[str, Tensor]]
    method: Method
    gradients: Any


@pytest.fixture
def foreign() -> Foreign:
    """Around code on a fake GPU: what it does outside of the GPU, or copies to it."""
    return Foreign()


@pytest.fixture
def cpu_recorder() -> type[CpuRecorder]:
    """Records steps on the CPU."""
    return CpuRecorder


@pytest.fixture
def train_steps() -> Callable[..., Trained]:
    """Trains a method on given batches, by epoch, with recorded steps or without."""
    from lightning_fabric import Fabric

    def train(
        method: Method,
        epochs: list[list[TrainingBatch]],
        *,
        recorded: bool,
        precision: str = "32",
        sam: float = 0.0,
    ) -> Trained:
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        weights = [p for p in method.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=0.05, momentum=0.9)
        model, wrapped = fabric.setup(method, optimizer)
        method.train()
        gradients: Any = GraphedGradients(CpuRecorder(method)) if recorded else compute_gradients
        step_gradients = SharpnessAware(gradients, sam) if sam else gradients
        losses = []
        for epoch, batches in enumerate(epochs):
            method.set_progress(epoch / len(epochs))
            for step, batch in enumerate(batches):
                seed_step(0, epoch, step, 0)
                losses.append(train_step(fabric, model, wrapped, batch, step_gradients))
        return Trained(losses, method, gradients)

    return train


@pytest.fixture
def assert_same() -> Callable[[Trained, Trained], None]:
    """Checks that two trainings gave the same losses and the same state, bit for bit."""

    def check(ours: Trained, theirs: Trained) -> None:
        exact = {"rtol": 0, "atol": 0, "equal_nan": True}
        assert_close(ours.losses, theirs.losses, **exact)
        assert_close(ours.method.state_dict(), theirs.method.state_dict(), **exact)

    return check

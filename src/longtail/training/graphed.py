"""Loss and gradients of a batch, computed step by step or replayed as one CUDA graph."""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from longtail.data import InMemoryLoader
from longtail.methods import MixPartner
from longtail.training.input import TrainingBatch, TrainingLoader

if TYPE_CHECKING:  # it takes seconds to import, and only training needs it
    from lightning_fabric import Fabric

WARM_UP = 3  # steps on a separate stream before the capture, as torch requires

Gradients = Callable[["Fabric", Any, Any, TrainingBatch], dict[str, Tensor]]


def compute_gradients(
    fabric: "Fabric", model: Any, optimizer: Any, batch: TrainingBatch
) -> dict[str, Tensor]:
    """The loss of a batch, and the gradients of the weights.

    Args:
        fabric: fabric of the run.
        model: the method, as `fabric.setup` wraps it.
        optimizer: the optimizer, as `fabric.setup` wraps it.
        batch: views, targets and indices, on the device.

    Returns: what the method's `forward` returned, without the graph of its gradients.
    """
    optimizer.zero_grad()
    losses: dict[str, Tensor] = model(*batch.arguments())
    fabric.backward(losses["loss"])
    return {name: value.detach() for name, value in losses.items()}


def gradients_of(fabric: "Fabric", loader: TrainingLoader) -> Gradients:
    """How a run computes its gradients: as a CUDA graph if all batches have the same shape."""
    in_memory = isinstance(loader.images, InMemoryLoader)
    if fabric.device.type == "cuda" and fabric.world_size == 1 and in_memory:
        return GraphedGradients(CudaRecorder())
    return compute_gradients


class CudaRecorder:
    """Records functions as CUDA graphs, on its own stream."""

    def __init__(self) -> None:
        self.stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Runs the block on the stream of the recordings."""
        main = torch.cuda.current_stream()
        self.stream.wait_stream(main)
        with torch.cuda.stream(self.stream):
            yield
        main.wait_stream(self.stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Records the kernels that a function launches, without running them.

        Returns: a function that runs them, on the same memory.
        Raises:
            RuntimeError: when the function waits for the device.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            function()
        return graph.replay

    def host_random(self) -> tuple[Any, ...]:
        """State of the generators whose numbers a recording would repeat."""
        keys: Any = np.random.get_state()  # noqa: NPY002  # the generator of everything that has none
        return torch.get_rng_state().tolist(), keys[1].tolist(), keys[2], random.getstate()


class GraphedGradients:
    """`compute_gradients` as one CUDA graph: one launch per step instead of a thousand.

    The first steps are computed as usual. Then the forward and backward pass are recorded, and
    replayed for every batch of the same shape. The kernels and their order are the same, and so are
    the numbers. The optimizer stays outside: its learning rate and the scale of 16-bit gradients
    may change in every step. Random numbers follow the seed of each step, since torch's generator
    of the device is part of a recording.

    A replay does not repeat what Python does in `forward`. A method is therefore recorded only
    while it is `static` (see `Method`), and not if a step changes numbers or strings in it,
    replaces its tensors or draws from a generator of the host. It is recorded again when such an
    attribute has changed between two steps, for instance with the progress. A method that cannot be
    recorded is computed as usual, after a warning.

    Args:
        recorder: makes the recordings.
    """

    def __init__(self, recorder: CudaRecorder) -> None:
        self.recorder = recorder
        self.warm = self.replays = 0
        self.refused = False
        self.inputs: TrainingBatch | None = None
        self.replay: Callable[[], None] | None = None
        self.losses: dict[str, Tensor] = {}
        self.gradients: list[tuple[nn.Parameter, Tensor | None]] = []
        self.state: list[Any] = []

    def __call__(
        self, fabric: "Fabric", model: Any, optimizer: Any, batch: TrainingBatch
    ) -> dict[str, Tensor]:
        """See `compute_gradients`; the next step overwrites the memory of the gradients."""
        step, method = (fabric, model, optimizer), model.module
        if self.refused or not method.static or not self._fits(batch):
            return compute_gradients(*step, batch)
        state = python_state(method)
        if self.warm < WARM_UP:
            before = self.recorder.host_random()
            with self.recorder.aside():
                losses = compute_gradients(*step, batch)
            self.warm += 1
            if (state, before) != (python_state(method), self.recorder.host_random()):
                self._refuse(method, "it changes its state, or draws random numbers, in Python")
            return losses
        if self.replay is None or state != self.state:
            self._record(*step, batch, state)
        if self.replay is None or self.inputs is None:
            return compute_gradients(*step, batch)
        for ours, given in zip(_tensors(self.inputs), _tensors(batch), strict=True):
            ours.copy_(given)
        self.replay()
        self.replays += 1
        for parameter, gradient in self.gradients:
            parameter.grad = gradient  # a step in between may have set it to None
        return {name: value.clone() for name, value in self.losses.items()}

    def _fits(self, batch: TrainingBatch) -> bool:
        return self.inputs is None or _shapes(self.inputs) == _shapes(batch)

    def _record(
        self, fabric: "Fabric", model: Any, optimizer: Any, batch: TrainingBatch, state: list[Any]
    ) -> None:
        """Records the step on copies of a batch, into which later batches are copied."""
        if self.replays == 1:
            return self._refuse(model.module, "its state in Python changes in every step")
        self.replay, self.gradients, self.losses = None, [], {}  # frees the last recording's memory
        inputs = _copy(batch)

        def step() -> None:
            self.losses = compute_gradients(fabric, model, optimizer, inputs)

        try:
            optimizer.zero_grad()  # so that gradients are written, not added to
            self.replay = self.recorder.record(step)
        except RuntimeError as error:
            return self._refuse(model.module, str(error).partition("\n")[0])
        self.inputs, self.state, self.replays = inputs, state, 0
        self.gradients = [(p, p.grad) for p in model.module.parameters() if p.requires_grad]

    def _refuse(self, method: nn.Module, reason: str) -> None:
        self.refused, self.replay = True, None
        warnings.warn(
            f"steps of {type(method).__name__} are not recorded as a CUDA graph, "
            f"which makes small networks slower: {reason}",
            stacklevel=2,
        )


def python_state(module: nn.Module) -> list[Any]:
    """Numbers and strings in a module and its children, and addresses of their tensors."""
    return [
        value.data_ptr() if isinstance(value, Tensor) else value
        for part in module.modules()
        for values in (vars(part), part._parameters, part._buffers)
        for value in values.values()
        if isinstance(value, int | float | str | Tensor | None)
    ]


def _tensors(batch: TrainingBatch) -> list[Tensor]:
    partner = () if batch.partner is None else (batch.partner.other, batch.partner.weight)
    return [batch.views, batch.target, batch.index, *partner]


def _shapes(batch: TrainingBatch) -> list[Any]:
    return [(tensor.shape, tensor.dtype) for tensor in _tensors(batch)]


def _copy(batch: TrainingBatch) -> TrainingBatch:
    views, target, index, *partner = (tensor.clone() for tensor in _tensors(batch))
    return TrainingBatch(views, target, index, MixPartner(*partner) if partner else None)

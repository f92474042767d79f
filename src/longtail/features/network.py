"""The fastest form of a network in evaluation mode: onnxruntime on a CPU, else torch."""

import copy
import io
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from longtail.features.cache import fingerprint
from longtail.features.memory import keep_freed_memory
from longtail.files import cache_folder, whole_file

Images = NDArray[np.uint8]  # (N, 3, H, W)
Outputs = NDArray[np.float32]  # (N, D)
Precision = Literal["auto", "32-true", "bf16-mixed"]

PIXELS = 224**2
# Pixels from which an export, which takes seconds, pays off on a CPU.
WORTH_EXPORT = 200 * PIXELS
TOLERANCE = 1e-3  # between torch and onnxruntime, over the largest output


class Network(ABC):
    """A function from images to outputs.

    Attributes:
        concurrent: whether it is called by many threads at once, each with one processor.
        batch_pixels: number of pixels of a batch at which it is fastest.
        precision: `32-true` or `bf16-mixed`.
    """

    concurrent: ClassVar[bool]
    batch_pixels: int
    precision: str

    @abstractmethod
    def __call__(self, images: Images) -> Outputs:
        """Outputs (N, D) of images (N, 3, H, W)."""


class OnnxNetwork(Network):
    """A network in onnxruntime, one thread for each call.

    Args:
        model: path or content of an ONNX file.
    """

    concurrent = True
    batch_pixels = 8 * PIXELS
    precision = "32-true"

    def __init__(self, model: Path | bytes) -> None:
        import onnxruntime

        self._model = model
        options = onnxruntime.SessionOptions()
        # Each of our threads decodes images and runs the network on them, so that none ever waits.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Images) -> Outputs:
        """Outputs (N, D) of images (N, 3, H, W)."""
        outputs: Outputs = self._session.run(None, {"images": images})[0]
        return outputs

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, which may be on another machine."""
        model = self._model
        return OnnxNetwork, (model.read_bytes() if isinstance(model, Path) else model,)


class TorchNetwork(Network):
    """A network in torch, with autocast if bf16 is requested.

    Args:
        model: the network; it is moved to the device and set to evaluation mode.
        device: where it computes.
        precision: `32-true` or `bf16-mixed`.
    """

    concurrent = False

    def __init__(self, model: nn.Module, device: torch.device, precision: str) -> None:
        self._model = model.to(device).eval()
        self._device, self.precision = device, precision
        self.batch_pixels = (32 if device.type == "cpu" else 128) * PIXELS
        if device.type == "cpu":
            keep_freed_memory()

    @torch.inference_mode()
    def __call__(self, images: Images) -> Outputs:
        """Outputs (N, D) of images (N, 3, H, W)."""
        batch = torch.from_numpy(images).to(self._device)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"
        ):
            outputs: Outputs = self._model(batch).float().cpu().numpy()
        return outputs

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, which may have another device of the same kind."""
        model = copy.deepcopy(self._model).cpu()
        return TorchNetwork, (model, torch.device(self._device.type), self.precision)


def fastest(
    model: nn.Module,
    size: int,
    images: int,
    device: torch.device,
    precision: Precision = "auto",
) -> Network:
    """The fastest form of a network for a number of images.

    Args:
        model: images (N, 3, size, size) uint8 to outputs (N, D).
        size: side of the images in pixels.
        images: how many there will be.
        device: where to compute.
        precision: `auto` is bf16 on a CUDA device that supports it, else float32.
    """
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if fast else "32-true"
    if device.type == "cpu" and precision == "32-true":
        file = cache_folder() / "onnx" / f"{fingerprint(model)[:32]}-{size}.onnx"
        worth = images * size**2 >= WORTH_EXPORT or file.is_file()
        if worth and (network := _onnx_network(model.eval(), size, file)) is not None:
            return network
    return TorchNetwork(model, device, precision)


def _onnx_network(model: nn.Module, size: int, file: Path) -> OnnxNetwork | None:
    """The network in onnxruntime, exported once; None with a warning if that fails."""
    if file.is_file():
        with suppress(Exception):  # whatever onnxruntime raises for a damaged file: export again
            return OnnxNetwork(file)
    try:
        content = export_onnx(model, size)
        network = OnnxNetwork(content)
        _verify(network, model, size)
    except Exception as error:  # the exporter and onnxruntime have no common error
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"onnxruntime cannot run {type(model).__name__} ({reason}): torch computes its "
            "outputs, more slowly",
            stacklevel=4,
        )
        return None
    with suppress(OSError), whole_file(file) as part:  # without it, the next program exports again
        part.write_bytes(content)
    return network


def export_onnx(model: nn.Module, size: int) -> bytes:
    """ONNX file of a network, `images` (N, 3, size, size) uint8 to `outputs` (N, D)."""
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # warnings of tracing; the outputs are compared below
        torch.onnx.export(
            model.cpu().eval(),
            (example,),
            buffer,  # type: ignore[arg-type]  # the tracing exporter takes one
            dynamo=False,  # tracing takes a third of the time of torch.export
            input_names=["images"],
            output_names=["outputs"],
            dynamic_axes={"images": {0: "N"}, "outputs": {0: "N"}},
        )
    return buffer.getvalue()


@torch.inference_mode()
def _verify(network: OnnxNetwork, model: nn.Module, size: int) -> None:
    """Compares with torch for batches of one and three images.

    Raises:
        FloatingPointError: when the outputs differ.
    """
    generator = torch.Generator().manual_seed(0)
    for count in (1, 3):
        images = torch.randint(0, 256, (count, 3, size, size), generator=generator).byte()
        wanted = model.cpu()(images).float().numpy()
        difference = np.abs(network(images.numpy()) - wanted).max() / np.abs(wanted).max()
        if not difference <= TOLERANCE:
            raise FloatingPointError(f"its outputs differ by {difference:.2g}")

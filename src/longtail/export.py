"""A trained model as one file for other programs: ONNX for any photograph, or the weights."""

import json
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.files import whole_file
from longtail.models import ImageClassifier
from longtail.shift import expressed_prior
from longtail.training import RunFolder
from longtail.training.model_file import save_weights
from longtail.version import VERSION

Format = Literal["onnx", "safetensors"]
Fit = Literal["crop", "pad", "squash"]
# Difference of logits between torch and onnxruntime, over the largest logit: float32 leaves about
# 1e-6, a grey level that is rounded the other way more.
TOLERANCE = 1e-2


class Deployed(nn.Module):
    """A classifier of photographs with the target prior as an input, as in the ONNX file.

    Args:
        model: images of `size` x `size` to logits.
        log_expressed: (C,), natural log of the prior that those logits express.
        size: side in pixels of the images that the model takes.
        margin: shorter side of the resized image over `size`, for the centre crop.
        fit: see `export_run`.
    """

    log_expressed: Tensor

    def __init__(
        self,
        model: ImageClassifier,
        log_expressed: Tensor,
        size: int,
        margin: float = 1.0,
        fit: Fit = "crop",
    ) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.margin = margin
        self.fit: Fit = fit
        self.register_buffer("log_expressed", log_expressed)

    def forward(self, images: Tensor, log_prior: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities under the target prior.

        Args:
            images: (B, 3, H, W) uint8, RGB, of any height and width.
            log_prior: (C,), natural log of the target prior; any constant may be added to it, and
                -inf rules a class out. With `log_expressed` the logits are the model's own.

        Returns: (B, C) logits and (B, C) probabilities.
        """
        logits = self.model(self.resized(images)) + (log_prior - self.log_expressed)
        return logits, logits.softmax(dim=1)

    def resized(self, images: Tensor) -> Tensor:
        """Images resized to (B, 3, size, size) uint8 as by Pillow's bilinear filter."""
        height, width = images.shape[-2:]
        sides = torch.stack([_scalar(height, images), _scalar(width, images)])
        boxes = {"crop": sides.min() / self.margin, "pad": sides.max(), "squash": sides}
        box = boxes[self.fit].expand(2)
        down = _filter(height, box[0], self.size, images.device)
        across = _filter(width, box[1], self.size, images.device)
        rows = (images.float() @ across.T).round()  # Pillow rounds after each of its two passes
        return (down @ rows).round().clamp(0, 255).to(torch.uint8)


def _scalar(length: int, like: Tensor) -> Tensor:
    return torch.full((), length, dtype=torch.float32, device=like.device)


def _filter(length: int, box: Tensor, size: int, device: torch.device) -> Tensor:
    """(size, length): weights of the pixels of one axis in each of `size` resized ones.

    Args:
        length: pixels of the axis.
        box: length of the centred part that becomes `size` pixels; beyond the image it is black.
        size: pixels of the result.
        device: where the weights are made.
    """
    scale = box / size
    start = (length - box) / 2
    centres = start + (torch.arange(size, device=device) + 0.5) * scale
    pixels = torch.arange(length, device=device) + 0.5
    # A triangle as wide as a resized pixel, which smooths as it shrinks; at least one pixel.
    distance = (pixels - centres[:, None]).abs() / scale.clamp(min=1.0)
    weights = (1 - distance).clamp(min=0)
    inside = ((centres > 0) & (centres < length))[:, None]
    return weights * inside / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)


def export_run(
    run: RunFolder, to: Format = "onnx", out: Path | None = None, *, fit: Fit = "crop"
) -> Path:
    """Writes a run's model as one file that has been checked, or none.

    `onnx`: inputs `images` (batch, 3, height, width) uint8, photographs of any size, and
    `log_prior` (classes,) float32, by default the log of the prior that the logits express.
    Outputs `logits` and `probabilities` (batch, classes). The file resizes and normalises the
    images itself. Its metadata hold the model card of the run, each value as JSON.

    `safetensors`: the weights, with the same card under the metadata key `longtail`.

    Args:
        run: a finished run.
        to: the format.
        out: the file; default for onnx: `model.onnx` in the run folder.
        fit: how a photograph becomes the square that the model takes. `crop`: its centre, as
            `longtail predict` does it; `pad`: all of it, with black bars; `squash`: all of it, its
            sides scaled each on its own.

    Returns: the file.
    Raises:
        InputError: when `to` or `fit` is unknown, `to` is `onnx` for a run that is not of whole
            images, `out` or a `fit` is given or missing where it must not be, `onnx` is not
            installed, or the run has not ended.
        FloatingPointError: when the file does not compute what the model computes; it is not kept.
    """
    for name, value, known in (("to", to, get_args(Format)), ("fit", fit, get_args(Fit))):
        if value not in known:
            raise InputError(f"{name} must be one of {known}, got {value!r}")
    card = describe(run)
    model = run.model()
    if to == "onnx":
        if not isinstance(model, ImageClassifier):
            raise InputError(
                f"to must be 'safetensors' for {run.folder}, which is not a run of whole images, "
                f"got {to!r}"
            )
        path = out or run.folder / "model.onnx"
        _write_onnx(model, {**card, "fit": fit}, path)
        return path
    if out is None:
        raise InputError(
            f"out must be a file for safetensors, since {run.folder} has its model.safetensors, "
            "got None"
        )
    if fit != "crop":
        raise InputError(f"fit must be 'crop' for safetensors, which has no resize, got {fit!r}")
    save_weights(out, model, card)
    return out


def describe(run: RunFolder) -> dict[str, Any]:
    """The model card in the file: classes, counts, prior, image size, metrics."""
    card = run.model_card()
    prior = expressed_prior(card["expresses"], run.prior)
    metrics = {name: value for name, value in run.metrics.items() if value == value}  # no NaN
    return {
        **card,
        "expressed_prior": prior.tolist(),
        "metrics": metrics,
        "longtail_version": VERSION,
    }


def _write_onnx(classifier: ImageClassifier, card: dict[str, Any], path: Path) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401  (the check needs it)
        import onnxscript  # noqa: F401  (the exporter needs it)
    except ImportError as error:
        raise InputError(f"to='onnx' needs {error.name}: pip install 'longtail[onnx]'") from error
    log_expressed = torch.tensor(card["expressed_prior"]).log().float()
    size, margin = card["image_size"], card["margin"]
    deployed = Deployed(classifier, log_expressed, size, margin, card["fit"])
    # Not the buffer itself as the example: the exporter would take both for the same value.
    example = torch.zeros(2, 3, 61, 67, dtype=torch.uint8), torch.zeros_like(log_expressed)
    batch, height, width = map(torch.export.Dim, ("batch", "height", "width"))
    program = torch.onnx.export(
        deployed.eval(),
        example,
        dynamo=True,
        verbose=False,
        input_names=["images", "log_prior"],
        output_names=["logits", "probabilities"],
        dynamic_shapes={"images": {0: batch, 2: height, 3: width}, "log_prior": None},
    )
    assert program is not None
    proto = program.model_proto
    # An initializer with the name of an input is that input's default.
    default = onnx.numpy_helper.from_array(deployed.log_expressed.numpy(), "log_prior")
    proto.graph.initializer.append(default)
    onnx.helper.set_model_props(proto, {name: json.dumps(value) for name, value in card.items()})
    onnx.checker.check_model(proto)
    with whole_file(path) as part:
        onnx.save(proto, part)
        difference = _compare(part, deployed)
        if not difference <= TOLERANCE:
            raise FloatingPointError(
                f"{path} was not written: its logits differ from the model's by {difference:.3g} "
                f"of the largest one, more than {TOLERANCE:g}"
            )


@torch.no_grad()
def _compare(path: Path, deployed: Deployed) -> float:
    """Largest difference of logits, file against model, over the largest logit.

    Uses images of the model's own size, larger ones, smaller ones and other shapes, single and in
    batches, with the default prior and with another.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # silences a warning that log_prior can be overridden
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    other = torch.rand(len(deployed.log_expressed), generator=generator).log_softmax(0)
    size = deployed.size
    largest = 0.0
    for shape, log_prior in (
        ((1, 3, size, size), None),
        ((3, 3, size, size), other),
        ((1, 3, 2 * size + 3, 3 * size + 1), None),
        ((2, 3, size, size // 2 + 1), None),
        ((1, 3, 1, 1), other),
    ):
        images = torch.randint(0, 256, shape, generator=generator).byte()
        given = {"images": images.numpy()}
        if log_prior is not None:
            given["log_prior"] = log_prior.numpy()
        found = torch.from_numpy(session.run(["logits"], given)[0])
        wanted = deployed(images, deployed.log_expressed if log_prior is None else log_prior)[0]
        distance = (found - wanted).abs().max() / wanted.abs().max()
        largest = max(largest, float(distance.nan_to_num(nan=torch.inf)))
    return largest

"""A trained model as one file for other programs: ONNX with a prior that can be set, or weights."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.files import whole_file
from longtail.models import ImageClassifier
from longtail.shift import resolve_prior
from longtail.training import RunFolder
from longtail.training.run import save_weights

Format = Literal["onnx", "safetensors"]
# Of the logits, over the largest one, between torch and onnxruntime; float32 leaves about 1e-6.
TOLERANCE = 1e-3


class Deployed(nn.Module):
    """A classifier with the target prior as an input: what the ONNX file computes.

    Args:
        model: images to logits.
        log_expressed: (C,), natural log of the prior that those logits express.
    """

    log_expressed: Tensor

    def __init__(self, model: ImageClassifier, log_expressed: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("log_expressed", log_expressed)

    def forward(self, images: Tensor, log_prior: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities under the target prior.

        Args:
            images: (B, 3, H, W) uint8, RGB, as they are.
            log_prior: (C,), natural log of the target prior; any constant may be added to it, and
                -inf rules a class out. With `log_expressed` the logits are the model's own.

        Returns: (B, C) logits and (B, C) probabilities.
        """
        logits = self.model(images) + (log_prior - self.log_expressed)
        return logits, logits.softmax(dim=1)


def export_run(run: RunFolder, to: Format = "onnx", out: Path | None = None) -> Path:
    """Writes a run's model as one file that has been checked, or none.

    `onnx`: inputs `images` (batch, 3, size, size) uint8 and `log_prior` (classes,) float32, which
    need not be given: it is then the prior that the logits express. Outputs `logits` and
    `probabilities` (batch, classes). The model normalises the images itself. The metadata hold
    what the model card of the run says, each value as JSON.

    `safetensors`: the weights, with the same card under the metadata key `longtail`.

    Args:
        run: a finished run.
        to: the format.
        out: the file; for onnx `model.onnx` in the run folder when not given.

    Returns: the file.
    Raises:
        InputError: when the format is unknown, or onnx for a run that is not of whole images; `out`
            is missing where it is needed; `onnx` is not installed; or the run has not ended.
        FloatingPointError: when the file does not compute what the model computes; none is left.
    """
    if to not in get_args(Format):
        raise InputError(f"to must be one of {get_args(Format)}, got {to!r}")
    card = describe(run)
    model = run.model()
    if to == "onnx":
        if not isinstance(model, ImageClassifier):
            raise InputError(
                f"to must be 'safetensors' for {run.folder}, which is not a run of whole images, "
                f"got {to!r}"
            )
        path = out or run.folder / "model.onnx"
        _write_onnx(model, card, path)
        return path
    if out is None:
        raise InputError(
            f"out must be a file for safetensors, since {run.folder} has its model.safetensors, "
            "got None"
        )
    save_weights(out, model, card)
    return out


def describe(run: RunFolder) -> dict[str, Any]:
    """The model card that goes into the file: classes, counts, prior, image size, figures."""
    card = run.model_card()
    prior = resolve_prior(card["expresses"], run.prior, run.prior.num_classes)
    figures = {name: value for name, value in run.metrics.items() if value == value}  # no NaN
    return {
        **card,
        "expressed_prior": prior.tolist(),
        "metrics": figures,
        "longtail_version": version("longtail"),
    }


def _write_onnx(classifier: ImageClassifier, card: dict[str, Any], path: Path) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401  (the check needs it)
        import onnxscript  # noqa: F401  (the exporter needs it)
    except ImportError as error:
        raise InputError(f"to='onnx' needs {error.name}: pip install 'longtail[onnx]'") from error
    log_expressed = torch.tensor(card["expressed_prior"]).log().float()
    model = Deployed(classifier, log_expressed).eval()
    size = card["image_size"]
    # Not the buffer itself as the example: the exporter would take both for the same value.
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8), torch.zeros_like(log_expressed)
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        verbose=False,
        input_names=["images", "log_prior"],
        output_names=["logits", "probabilities"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}, "log_prior": None},
    )
    assert program is not None
    proto = program.model_proto
    # An initializer with the name of an input is that input's default.
    default = onnx.numpy_helper.from_array(model.log_expressed.numpy(), "log_prior")
    proto.graph.initializer.append(default)
    onnx.helper.set_model_props(proto, {name: json.dumps(value) for name, value in card.items()})
    onnx.checker.check_model(proto)
    with whole_file(path) as part:
        onnx.save(proto, part)
        difference = _compare(part, model, size)
        if not difference <= TOLERANCE:
            raise FloatingPointError(
                f"{path} was not written: its logits differ from the model's by {difference:.3g} "
                f"of the largest one, more than {TOLERANCE:g}"
            )


@torch.no_grad()
def _compare(path: Path, model: Deployed, size: int) -> float:
    """Largest difference of logits, file against model, over the largest logit.

    Two sizes of batch; once with the default prior, once with another.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # else it warns that log_prior can be set, as it is meant to
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    other = torch.rand(len(model.log_expressed), generator=generator).log_softmax(0)
    largest = 0.0
    for batch, log_prior in ((1, None), (3, other)):
        images = torch.randint(0, 256, (batch, 3, size, size), generator=generator).byte()
        given = {"images": images.numpy()}
        if log_prior is not None:
            given["log_prior"] = log_prior.numpy()
        found = torch.from_numpy(session.run(["logits"], given)[0])
        wanted = model(images, model.log_expressed if log_prior is None else log_prior)[0]
        distance = (found - wanted).abs().max() / wanted.abs().max()
        largest = max(largest, float(distance.nan_to_num(nan=torch.inf)))
    return largest

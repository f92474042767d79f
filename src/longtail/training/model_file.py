"""The file of a trained model: its weights, and in the metadata the card to rebuild it."""

import errno
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.files import whole_file
from longtail.models import ImageClassifier, create_backbone, create_head, is_own_backbone
from longtail.names import refuse_untrusted, trusted_paths
from longtail.prior import ClassPrior
from longtail.training.card import IMAGE_CARD, KEY, read_card
from longtail.training.mixture_head import MixtureClassifier

Model = TypeVar("Model", bound=nn.Module)


class ModelFile:
    """A trained classifier in one file.

    Args:
        file: written by `longtail.weights.write_weights`.
        trust: as for `longtail.training.Run`.

    Raises:
        InputError: when the file is not a valid model file.

    Attributes:
        card: backbone, head, classes, class counts, settings, seed, commit, metrics.
    """

    def __init__(self, file: str | Path, trust: Any = ()) -> None:
        self.file = Path(file)
        self.card = read_card(self.file, IMAGE_CARD)
        self.trust = trusted_paths(trust)

    @property
    def prior(self) -> ClassPrior:
        """Class prior of the training split."""
        return ClassPrior(self.card["class_counts"])

    def model_card(self) -> dict[str, Any]:
        """The card, as a run has it."""
        return self.card

    def model(self) -> ImageClassifier:
        """The trained model, in evaluation mode on the CPU."""
        return load_weights(self.file, self.card, make_classifier, self.trust)


def make_classifier(card: Mapping[str, Any]) -> ImageClassifier:
    """The image classifier that a card describes, with new weights."""
    backbone = create_backbone(card["backbone"])
    classes = len(card["class_names"])
    if card["head"] == MixtureClassifier.name:
        mixture = MixtureClassifier(backbone.num_features, classes, *card["keys"])
        return ImageClassifier(backbone, mixture)
    head = create_head(card["head"], backbone.num_features, classes)
    return ImageClassifier(backbone, head)


def load_weights(
    path: Path,
    card: dict[str, Any],
    make: Callable[[dict[str, Any]], Model],
    trust: Collection[str],
    load: Callable[[Model], object] | None = None,
) -> Model:
    """The model of a file, in evaluation mode on the CPU.

    Args:
        path: model file.
        card: its card, with `longtail_version`.
        make: makes the model that the card describes.
        trust: import paths that the card may name.
        load: loads the weights; default: those of the file.

    Raises:
        InputError: when the card names code that is not trusted, or the weights do not fit the
            model.
    """
    backbone = card["backbone"]
    if is_own_backbone(backbone):
        refuse_untrusted(path, {backbone: "backbone"}, trust)
    try:
        model = make(card)
        if load is None:
            model.load_state_dict(load_file(path))
        else:
            load(model)
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} was written by longtail {card.get('longtail_version', 'unknown')}, whose "
            f"model this version cannot load: {error}"
        ) from error
    return model.eval()


def save_weights(path: Path, model: nn.Module, card: Mapping[str, Any]) -> None:
    """Writes weights as a safetensors file, atomically, with a card in its metadata.

    Raises:
        OSError: when the file cannot be written, or its verification fails.
    """
    state = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    with whole_file(path) as part:
        write_tensors(part, state, {KEY: json.dumps(card)})
        written = load_file(part)
        if not all(
            torch.allclose(written[name], value, rtol=0.0, atol=0.0, equal_nan=True)
            for name, value in state.items()
        ):
            raise OSError(errno.EIO, "the file does not match the weights (verification failed)")


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file.

    Raises:
        OSError: when it cannot be written, where safetensors has an error of its own.
    """
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error

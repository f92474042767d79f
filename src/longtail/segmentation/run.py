"""The run folder of a segmentation run."""

from typing import Any

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.files import read_values
from longtail.models import create_dense_head
from longtail.segmentation.create import create_dense_backbone
from longtail.segmentation.model import Segmenter
from longtail.training import RunFolder


class PixelRun(RunFolder):
    """A run folder of a segmentation run.

    It has `confusion.json` instead of predictions, since the logits of all pixels would take more
    space than the data. For another prior, the model predicts the images again.
    """

    reads = "segmentation"
    needed = ("backbone", "head", "decoder")

    def model(self) -> Segmenter:
        """The trained model, in evaluation mode on the CPU.

        Raises:
            InputError: when the training has not ended.
        """

        def make(card: dict[str, Any]) -> Segmenter:
            backbone = create_dense_backbone(card["backbone"], decoder=card["decoder"])
            classes = len(card["class_names"])
            head = create_dense_head(card["head"], backbone.num_features, classes)
            return Segmenter(backbone, head)

        return self._load_weights(make)

    def confusion(self) -> Tensor:
        """(C, C), true against predicted class, of the split that the run was evaluated on.

        Raises:
            InputError: when the training has not ended.
        """
        path = self.folder / "confusion.json"
        if not path.is_file():
            raise InputError(f"{self.folder} has no confusion.json: its training has not ended")
        matrix, classes = read_values(path).get("matrix"), self.prior.num_classes
        try:
            confusion = torch.tensor(matrix, dtype=torch.int64)
            valid = confusion.shape == (classes, classes) and int(confusion.min()) >= 0
        except (TypeError, ValueError, RuntimeError):
            valid = False
        if not valid:
            raise InputError(f"{path} is not valid: matrix must hold {classes} x {classes} counts")
        return confusion

"""A segmentation run's folder, as it is read again."""

from typing import NoReturn

import torch
from torch import Tensor

from longtail.errors import InputError
from longtail.files import read_values
from longtail.models import Segmenter, create_dense_backbone, create_dense_head
from longtail.training.run import Run


class PixelRun(Run):
    """A run folder of a segmentation.

    Instead of predictions it holds `confusion.json`: logits of every pixel would take more than
    the data, and another prior takes another pass of the model over the images.
    """

    def model(self) -> Segmenter:  # type: ignore[override]  # of pixels, not of images
        """The trained model, in evaluation mode on the CPU.

        Raises:
            ValueError: when the training has not ended, or was one of whole images.
        """
        about = self.model_card()
        if self.task != "segmentation":
            raise InputError(f"{self.folder} is no run of segmentation")
        backbone = create_dense_backbone(about["backbone"], decoder=about["decoder"])
        head = create_dense_head(about["head"], backbone.num_features, len(about["class_names"]))
        return self._filled(Segmenter(backbone, head))

    def predictions(self) -> NoReturn:
        """There are none.

        Raises:
            ValueError: always.
        """
        raise InputError(
            f"{self.folder} is a run of segmentation and keeps no logits of every pixel: "
            "longtail evaluate lets its model see the images again"
        )

    def confusion(self) -> Tensor:
        """(C, C), true against predicted class of the part that was judged at the end.

        Raises:
            ValueError: when the training has not ended.
        """
        path = self.folder / "confusion.json"
        if not path.is_file():
            raise InputError(f"{self.folder} has no confusion.json: its training has not ended")
        return torch.tensor(read_values(path)["matrix"])

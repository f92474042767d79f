"""segmentation_models_pytorch and MMSegmentation: classification losses for maps of classes."""

from torch import Tensor, nn

from longtail.errors import InputError
from longtail.losses import ClassificationLoss
from longtail.losses.base import check_loss
from longtail.targets import IGNORE_INDEX, check_indices, check_tensor


class MapLoss(nn.Module):
    """A classification loss over all pixels that are not ignored, for segmentation libraries.

    Unlike `longtail.segmentation.pixel_loss` it uses only the pixels of its own process, as
    `DistributedDataParallel` expects of a loss.

    Args:
        loss: any `ClassificationLoss`, made with the pixel counts of the classes as its prior.
        ignore_index: target of the pixels that do not count.
        loss_name: name in the log of MMSegmentation, which optimises terms that begin with `loss_`.

    Raises:
        InputError: for any other loss.

    Examples:
        >>> import torch
        >>> from longtail import ClassPrior
        >>> from longtail.losses import LogitAdjustedLoss
        >>> loss = MapLoss(LogitAdjustedLoss(ClassPrior([900, 100])))
        >>> target = torch.tensor([[[0, 1], [255, 0]]])
        >>> round(loss(torch.zeros(1, 2, 2, 2), target).item(), 3)
        0.838
    """

    def __init__(
        self,
        loss: ClassificationLoss,
        ignore_index: int = 255,
        loss_name: str = "loss_longtail",
    ) -> None:
        super().__init__()
        check_loss("MapLoss", loss)
        self.loss, self.ignore_index, self.loss_name = loss, ignore_index, loss_name

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> Tensor:
        """Mean nats of the pixels that count; 0 if none does.

        Args:
            logits: (B, C, H, W).
            target: (B, H, W) or (B, 1, H, W), class of each pixel or `ignore_index`.
            weight: (B, H, W), weight of each pixel; the mean is then over the sum of weights.
            ignore_index: replaces that of the constructor, as MMSegmentation passes it.

        Raises:
            InputError: for shapes that do not match, or a target that is not a class index.
        """
        check_tensor("MapLoss", "logits", logits)
        check_tensor("MapLoss", "target", target, logits.device)
        if target.ndim == 4 and target.shape[1] == 1:
            target = target[:, 0]
        if logits.ndim != 4 or target.shape != (len(logits), *logits.shape[2:]):
            raise InputError(
                "logits of MapLoss must be (B, C, H, W) and target (B, H, W), "
                f"got {tuple(logits.shape)} and {tuple(target.shape)}"
            )
        ignored = self.ignore_index if ignore_index is None else ignore_index
        rows = logits.permute(0, 2, 3, 1).flatten(0, 2)
        labels = check_indices("MapLoss", "target", target.flatten())
        labels = labels.masked_fill(labels == ignored, IGNORE_INDEX)
        nats: Tensor = self.loss(rows, labels, None if weight is None else weight.flatten())
        return nats

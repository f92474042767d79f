"""First-in-first-out queue of the latest keys of all classes."""

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.ranges import MAX_QUEUE, MAX_WIDTH, check_range
from longtail.targets import check_labels, check_tensor


class FifoQueue(nn.Module):
    """The latest `size` keys of all classes: the queue of MoCo and PaCo.

    He et al., Momentum Contrast, CVPR 2020, arXiv 1911.05722; Cui et al., Parametric Contrastive
    Learning, ICCV 2021, arXiv 2107.12028.
    Differences from the published code: slots start empty, with label -1, which does not count in
    the losses, where the code has random keys; a batch may have any size.

    `enqueue` writes into the buffers: between a loss and its `backward`, as in MoCo's order, score
    against copies (`queue.features.clone()`, `queue.labels.clone()`).

    Args:
        size: number of slots, 1 or more.
        width: width of the stored features, 1 or more.

    Attributes:
        features: (size, width), float32, zeros in empty slots.
        labels: (size,), class of each slot, -1 for an empty one.
        pointer: scalar, the next slot to write.

    Raises: ValueError: when size or width is below 1.

    Examples:
        >>> queue = FifoQueue(size=3, width=1)
        >>> queue.enqueue(torch.tensor([[1.0], [2.0]]), torch.tensor([7, 8]))
        >>> queue.labels.tolist()
        [7, 8, -1]
        >>> queue.enqueue(torch.tensor([[3.0], [4.0]]), torch.tensor([9, 10]))
        >>> queue.labels.tolist()
        [10, 8, 9]
    """

    features: Tensor
    labels: Tensor
    pointer: Tensor

    def __init__(self, *, size: int, width: int) -> None:
        super().__init__()
        check_range("size of FifoQueue (queue_size)", size, least=1, most=MAX_QUEUE, whole=True)
        check_range("width of FifoQueue", width, least=1, most=MAX_WIDTH, whole=True)
        size, width = int(size), int(width)
        self.register_buffer("features", torch.zeros(size, width))
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("pointer", torch.tensor(0))

    @torch.no_grad()
    def enqueue(self, features: Tensor, labels: Tensor) -> None:
        """Writes a batch, in its order, over the oldest slots; of a larger batch, the last samples.

        Args:
            features: (batch, width), of any float type.
            labels: (batch,), class index of each sample, 0 or more.

        Raises: ValueError: when an argument has the wrong type, shape or values.
        """
        name, (size, width) = "FifoQueue.enqueue", self.features.shape
        check_tensor(name, "features", features, self.features.device)
        check_tensor(name, "labels", labels, self.features.device)
        if labels.ndim != 1 or features.shape != (len(labels), width):
            raise InputError(
                f"features and labels of {name} must be (batch, {width}) and (batch,), "
                f"got {tuple(features.shape)} and {tuple(labels.shape)}"
            )
        labels = check_labels(name, "labels", labels, None, ignore=False)[0]
        features, labels = features[-size:], labels[-size:]
        slot = (self.pointer + torch.arange(len(labels), device=labels.device)) % size
        self.features[slot] = features.to(self.features)
        self.labels[slot] = labels
        self.pointer.add_(len(labels)).remainder_(size)

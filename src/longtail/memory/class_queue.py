"""Class-wise queue: each class keeps its own latest keys, frequent classes more of them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from longtail.errors import InputError
from longtail.prior import ClassPrior, check_prior
from longtail.ranges import MAX_QUEUE, MAX_WIDTH, check_range
from longtail.targets import check_indices, check_labels, check_tensor


@dataclass(frozen=True)
class Keys:
    """All slots of a queue, filled or empty."""

    features: Tensor  # (size, width)
    labels: Tensor  # (size,), -1 for an empty slot
    index: Tensor  # (size,), index of the image, -1 for an empty slot


class ClassQueue(nn.Module):
    """First-in-first-out segments of fixed length, one for each class.

    The queue of GML (Suh and Seo, ICML 2023, arXiv 2305.01160): the segment of class c ends at
    ceil(base (c + 1) + (size - num_classes base) cumsum(prior)_c), so that each class has about
    `base` slots, plus a share of the rest by its frequency. Slots are thus sorted by class.
    Differences from the published code: slots start empty, with label -1, which does not count in
    the losses, where the code has random vectors that count as keys; if a batch has more samples of
    a class than the class has slots, the last ones are kept, where the code keeps the first.

    All state is in buffers, so that a checkpoint includes it. No gradient flows, and nothing waits
    for the device. `keys` gives views of the buffers: add a batch before the loss (as GML does) or
    after `backward`, but not in between, or score against copies, see `keys`.

    Args:
        prior: class prior of the training set.
        size: K, number of slots, at least `base` per class.
        width: width of the stored features.
        base: least number of slots of a class, 1 or more.

    Attributes:
        features: (size, width), float32.
        labels: (size,), class of each slot, -1 for an empty one.
        index: (size,), index of each slot's image, -1 for an empty one.
        starts: (num_classes,), first slot of each class.
        lengths: (num_classes,), number of slots of each class.
        pointers: (num_classes,), offset of the next slot to write, from the start of the class.

    Raises: ValueError: when the size is too small for the base, or base or width is below 1.

    Examples:
        >>> queue = ClassQueue(ClassPrior([6, 2]), size=6, width=2, base=1)
        >>> queue.lengths.tolist()
        [4, 2]
        >>> labels = torch.tensor([1, 0, 1, 1])
        >>> queue.enqueue(torch.arange(8.0).reshape(4, 2), labels, torch.tensor([10, 11, 12, 13]))
        >>> queue.keys().labels.tolist(), queue.keys().index.tolist()
        ([0, -1, -1, -1, 1, 1], [11, -1, -1, -1, 13, 12])
    """

    features: Tensor
    labels: Tensor
    index: Tensor
    starts: Tensor
    lengths: Tensor
    pointers: Tensor

    def __init__(self, prior: ClassPrior, *, size: int, width: int, base: int) -> None:
        super().__init__()
        check_prior("prior of ClassQueue", prior)
        check_range("base of ClassQueue (queue_base)", base, least=1, most=MAX_QUEUE, whole=True)
        check_range("width of ClassQueue", width, least=1, most=MAX_WIDTH, whole=True)
        check_range("size of ClassQueue (queue_size)", size, least=1, most=MAX_QUEUE, whole=True)
        size, width, base = int(size), int(width), int(base)
        if size < prior.num_classes * base:
            raise InputError(
                f"size of ClassQueue (queue_size) must be >= num_classes * base (queue_base) = "
                f"{prior.num_classes} * {base}, got {size}"
            )
        counts = prior.counts.double()
        # Product before quotient: whole numbers stay exact, so that ceil does not add a slot to
        # them.
        shared = (size - prior.num_classes * base) * counts.cumsum(0) / counts.sum()
        based = base * torch.arange(1, prior.num_classes + 1, device=counts.device)
        ends = (based + shared.ceil().long()).clamp(max=size)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        self.register_buffer("features", torch.zeros(size, width))
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("index", torch.full((size,), -1))
        self.register_buffer("starts", starts)
        self.register_buffer("lengths", ends - starts)
        self.register_buffer("pointers", torch.zeros_like(starts))

    def keys(self) -> Keys:
        """All slots, sorted by class; views of the buffers, so the next `enqueue` changes them.

        To add a batch between a loss and its `backward` (as MoCo does), score against copies:
        `keys = queue.keys()`, then `key, labels = keys.features.clone(), keys.labels.clone()`.

        The features of an empty slot are zeros. They do not count in the losses, but they would in
        a batch norm: select `labels >= 0` before one.
        """
        return Keys(self.features, self.labels, self.index)

    @property
    def filled(self) -> Tensor:
        """Number of filled slots of each class, (num_classes,)."""
        full = torch.zeros_like(self.lengths)
        return full.scatter_add_(0, self.labels.clamp(min=0), (self.labels >= 0).long())

    @torch.no_grad()
    def enqueue(self, features: Tensor, labels: Tensor, index: Tensor) -> None:
        """Writes a batch, in its order, over the oldest slots of each class.

        If the batch has more samples of a class than the class has slots, the last ones are kept.

        Args:
            features: (batch, width), of any float type.
            labels: (batch,), class index of each sample, in [0, num_classes).
            index: (batch,), index of each sample's image.

        Raises: ValueError: when an argument has the wrong type, shape or values.
        """
        name = "ClassQueue.enqueue"
        for what, value in {"features": features, "labels": labels, "index": index}.items():
            check_tensor(name, what, value, self.features.device)
        if features.shape != (len(labels), self.features.shape[1]) or index.shape != labels.shape:
            raise InputError(
                f"features, labels and index of {name} must be "
                f"(batch, {self.features.shape[1]}), (batch,) and (batch,), got "
                f"{tuple(features.shape)}, {tuple(labels.shape)} and {tuple(index.shape)}"
            )
        labels = check_labels(name, "labels", labels, len(self.lengths), ignore=False)[0]
        index = check_indices(name, "index", index, of="image")
        sorted_labels, order = labels.sort(stable=True)
        arriving = torch.zeros_like(self.lengths)
        arriving.scatter_add_(0, labels, torch.ones_like(labels))
        first = arriving.cumsum(0) - arriving

        rank = torch.arange(len(labels), device=labels.device) - first[sorted_labels]
        length = self.lengths[sorted_labels]
        slot = self.starts[sorted_labels] + (self.pointers[sorted_labels] + rank) % length
        # Several samples may share a slot. Each then writes the values of the last one, since the
        # order of writes is undefined, and a selection would have to wait for its size.
        later = (arriving[sorted_labels] - 1 - rank) // length
        source = order[first[sorted_labels] + rank + later * length]

        self.features[slot] = features[source].to(self.features)
        self.labels[slot] = labels[source]
        self.index[slot] = index[source]
        self.pointers.add_(arriving).remainder_(self.lengths)

"""Sampling strategies."""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.distributed
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Sampler

from longtail.arrays import as_indices, as_tensor
from longtail.data.seeds import mix_seed
from longtail.data.stratified import rank_within_class
from longtail.errors import InputError
from longtail.ranges import check_range

Sampling = Literal["sequential", "shuffle", "class_balanced", "square_root"]
# A class is drawn with probability proportional to its count to this power.
POWERS = {"class_balanced": 0.0, "square_root": 0.5}


def draw(labels: Tensor, sampler: Sampling, generator: torch.Generator) -> Tensor:
    """Draws the order of one epoch.

    `sequential` and `shuffle` see every image once. `class_balanced` draws classes uniformly and
    `square_root` in proportion to the square root of their counts (Kang et al., Decoupling
    Representation and Classifier for Long-Tailed Recognition, ICLR 2020, arXiv 1910.09217,
    equation 1 with q = 0 and q = 1/2); an epoch is then as many draws as there are images.

    Args:
        labels: (N,) int64, on the CPU.
        sampler: the strategy.
        generator: generator on the CPU; equal states give equal orders.

    Returns: (N,) int64, indices into `labels`.

    Examples:
        >>> labels = torch.tensor([0] * 98 + [1] * 2)
        >>> order = draw(labels, "class_balanced", torch.Generator().manual_seed(0))
        >>> bool(labels[order].sum() > 30)
        True
    """
    if sampler == "sequential":
        return torch.arange(len(labels))
    if sampler == "shuffle":
        return torch.randperm(len(labels), generator=generator)
    if sampler in POWERS:
        return draw_by_class(labels, POWERS[sampler], generator)
    raise InputError(
        f"sampler must be sequential, shuffle, class_balanced or square_root, got {sampler!r}"
    )


def draw_by_class(labels: Tensor, power: float, generator: torch.Generator) -> Tensor:
    """Draws N classes with probability proportional to count^power, then an image of each.

    The images of a class come in a random order that starts over at its end, as in the published
    code: no image is repeated before all images of its class have been drawn.
    """
    counts = torch.bincount(labels)
    weight = torch.where(counts > 0, counts.double() ** power, 0.0)
    drawn = torch.multinomial(weight, len(labels), replacement=True, generator=generator)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    begin = counts.cumsum(0) - counts
    return by_class[begin[drawn] + rank_within_class(drawn) % counts[drawn]]


class ClassBalancedSampler(Sampler[int]):
    """Class-balanced sampling for any `Dataset` and `DataLoader`, in one or several processes.

    An epoch has N draws, divided among the processes: each draw goes to one of them, and the last
    N modulo `num_replicas` are dropped, so that all take equally many. Every pass over the sampler
    is a new epoch, also after one that was left early. The order depends only on seed, epoch and
    labels; a run that is resumed, with any number of processes, continues with the remaining draws
    of its epoch.

    Args:
        labels: (N,), class index of each sample of the data set.
        num_replicas: number of processes (default: that of `torch.distributed` when a pass begins,
            or 1).
        rank: rank of this process (default: that of `torch.distributed` when a pass begins, or 0).
        power: a class is drawn with probability proportional to its count to this power: 0 draws
            all classes equally often, 0.5 by the square root, 1 as in the data set.
        seed: seed of the order, equal in all processes.

    Raises:
        InputError: when an argument is out of range, or there are fewer samples than processes.

    Examples:
        >>> sampler = ClassBalancedSampler([0] * 96 + [1] * 4, seed=0)
        >>> drawn = list(sampler)
        >>> len(drawn), sum(index >= 96 for index in drawn) > 30
        (100, True)
    """

    epoch: int
    _start: int
    _under_way: bool

    def __init__(
        self,
        labels: ArrayLike | Tensor,
        num_replicas: int | None = None,
        rank: int | None = None,
        power: float = 0.0,
        seed: int = 0,
    ) -> None:
        name = "labels of ClassBalancedSampler"
        values = as_tensor(labels, name).cpu()
        if values.ndim != 1 or len(values) == 0:
            raise InputError(f"{name} must be a non-empty vector, got shape {tuple(values.shape)}")
        self.labels = as_indices(values, name)
        check_range("power", power, least=0, most=1)
        for what, value in {"num_replicas": num_replicas, "rank": rank, "seed": seed}.items():
            if value is not None:
                check_range(what, value, least=0, whole=True)
        self.num_replicas = None if num_replicas is None else int(num_replicas)
        self.rank = None if rank is None else int(rank)
        self.power, self.seed = power, seed
        self._continue(0, 0)
        if num_replicas is not None and rank is not None:
            self._share()

    def _share(self) -> tuple[int, int]:
        """Number of processes and rank of this one, by now; too short a rest of an epoch is left.

        They are not known earlier: trainers start the processes after the loader has been made.
        """
        grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
        num_replicas, rank = self.num_replicas, self.rank
        if num_replicas is None:
            num_replicas = torch.distributed.get_world_size() if grouped else 1
        if rank is None:
            rank = torch.distributed.get_rank() if grouped else 0
        if not 0 <= rank < num_replicas:
            raise InputError(f"rank must be in [0, num_replicas {num_replicas}), got {rank}")
        if len(self.labels) < num_replicas:
            raise InputError(
                f"labels of ClassBalancedSampler must be at least num_replicas {num_replicas}, "
                f"got {len(self.labels)}"
            )
        if len(self.labels) - self._start < num_replicas:
            self._continue(self.epoch + 1, 0)
        return num_replicas, rank

    def __len__(self) -> int:
        """Number of draws that this process takes in the next pass."""
        num_replicas, _ = self._share()
        return (len(self.labels) - self._start) // num_replicas

    def __iter__(self) -> Iterator[int]:
        """The indices of this process in the next epoch, or in the rest of a resumed one."""
        if self._under_way:  # the last pass was left early
            self.set_epoch(self.epoch + 1)
        num_replicas, rank = self._share()
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        order = draw_by_class(self.labels, self.power, generator).tolist()
        begin, number = self._start, len(self)
        self._pass, self._under_way = (self.epoch, begin), True
        self._start, self._taken = 0, begin
        for step in range(number):
            self._taken = begin + (step + 1) * num_replicas
            yield order[begin + step * num_replicas + rank]
        last = self._pass  # of which batches may still be trained on
        self.set_epoch(self.epoch + 1)
        self._pass = last

    def set_epoch(self, epoch: int) -> None:
        """Starts the next pass at the beginning of this epoch, or where a loaded state left it."""
        resumed = epoch == self.epoch and self._start > 0  # and no pass has begun since
        if not resumed:
            self._continue(epoch, 0)

    def _continue(self, epoch: int, taken: int) -> None:
        """Starts the next pass in an epoch of which all processes have taken so many draws."""
        self.epoch = epoch
        self._start = self._taken = taken
        self._pass = epoch, taken  # epoch, and draws taken before, of the last pass that began
        self._under_way = False

    def state_dict(self, consumed: int | None = None) -> dict[str, int]:
        """State to resume from, in the middle of an epoch or at its end.

        Args:
            consumed: number of samples that this process trained on in the last pass that began
                (default: all that were drawn). It must be given if a `DataLoader` with workers
                draws ahead.
        """
        epoch, taken = self.epoch, self._taken
        if consumed is not None:
            epoch, begin = self._pass
            taken = begin + consumed * self._share()[0]
        return {"epoch": epoch, "taken": taken, "seed": self.seed, "samples": len(self.labels)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continues from a state; the number of processes may differ.

        Raises:
            InputError: when it is from another seed or data set.
        """
        own = {"seed": self.seed, "samples": len(self.labels)}
        for name, value in own.items():
            if state[name] != value:
                raise InputError(f"{name} of the state must be {value}, got {state[name]}")
        self._continue(state["epoch"], state["taken"])
        self._share()

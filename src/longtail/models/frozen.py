"""A network that only looks on."""

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Frozen(nn.Module, Generic[Network]):
    """Holds a network that is used and never trained, as a teacher.

    It goes along to another device or type, stays in evaluation mode, and is hidden from the state,
    from the optimiser and from what averages gradients over processes.

    Args:
        network: it is frozen.

    Example:
        >>> teacher = Frozen(nn.Linear(2, 3))
        >>> list(teacher.parameters()), list(teacher.state_dict())
        ([], [])
        >>> teacher.double().network.weight.dtype
        torch.float64
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._hidden = (network.requires_grad_(False).eval(),)  # in a tuple it is no submodule

    @property
    def network(self) -> Network:
        """What was given."""
        return self._hidden[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen[Network]":
        self.network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

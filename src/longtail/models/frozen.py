"""A frozen network, hidden from the optimiser and the state dict."""

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Frozen(nn.Module, Generic[Network]):
    """Holds a network that is used but not trained, such as a teacher.

    The network moves along to another device or type, stays in evaluation mode, and is hidden from
    the state dict, the optimiser and the averaging of gradients over processes.

    Args:
        network: the network to freeze.

    Examples:
        >>> teacher = Frozen(nn.Linear(2, 3))
        >>> list(teacher.parameters()), list(teacher.state_dict())
        ([], [])
        >>> teacher.double().network.weight.dtype
        torch.float64
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._hidden = (network.requires_grad_(False).eval(),)  # a tuple hides it from `modules`

    @property
    def network(self) -> Network:
        """The frozen network."""
        return self._hidden[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen[Network]":
        self.network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

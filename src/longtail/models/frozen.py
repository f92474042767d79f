"""A frozen network, hidden from the optimiser and the state dict."""

import copy
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

# Not subclasses, since heads compute in float32 under any autocast.
CAST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Frozen(nn.Module, Generic[Network]):
    """Holds a network that is used but not trained, such as a teacher.

    The network moves to other devices and types with its parent, stays in evaluation mode, and is
    hidden from the state dict, the optimiser and the averaging of gradients over processes.

    Autocast would cast its weights again in every step, with one operation per layer. Instead, a
    second copy with the weights of convolutions and linear layers in the type of the autocast is
    used, which gives the same numbers.

    Args:
        network: the network to freeze.

    Examples:
        >>> teacher = Frozen(nn.Linear(2, 3))
        >>> list(teacher.parameters()), list(teacher.state_dict())
        ([], [])
        >>> teacher.double().network.weight.dtype
        torch.float64
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     teacher.float().network.weight.dtype
        torch.bfloat16
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._hidden = (network.requires_grad_(False).eval(),)  # a tuple hides it from `modules`
        self._cast: dict[torch.dtype, Network] = {}

    @property
    def network(self) -> Network:
        """The frozen network, in the current precision."""
        network = self._hidden[0]
        device = next((p.device.type for p in network.parameters()), "meta")
        if device == "meta" or not torch.is_autocast_enabled(device):
            return network
        dtype = torch.get_autocast_dtype(device)
        if dtype not in self._cast:
            self._cast[dtype] = _cast(network, dtype)
        return self._cast[dtype]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen[Network]":
        self._hidden[0]._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._cast = {}
        return self


def _cast(network: Network, dtype: torch.dtype) -> Network:
    twin = copy.deepcopy(network)
    for layer in twin.modules():
        if type(layer) in CAST and layer.weight.dtype == torch.float32:
            layer.to(dtype)
    return twin

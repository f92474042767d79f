"""Replaces the prior that logits express."""

import warnings
from collections.abc import Callable
from typing import overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from longtail.arrays import as_tensor
from longtail.errors import InputError
from longtail.shift.estimation.posterior import refuse_probabilities
from longtail.shift.priors import Prior, probabilities

Array = NDArray[np.floating]


def log_ratio(expressed: Prior, target: Prior, num_classes: int | None = None) -> Tensor:
    """The term that `adjust` adds to the logits of each class: log target - log expressed.

    Where both agree it is -0.0, the only number whose addition leaves every float unchanged, bit
    for bit (adding 0.0 would turn -0.0 into 0.0). A class that the target rules out gets -inf.

    Returns: (num_classes,), float64.
    Raises: ValueError: as `adjust`.
    """
    p = probabilities(expressed, "expressed of adjust", num_classes)
    q = probabilities(target, "target of adjust", len(p))
    impossible = q == 0
    unknown = ((p == 0) & ~impossible).nonzero().flatten().tolist()
    if unknown:
        raise InputError(
            f"expressed of adjust must be above 0 for every class that target allows, got 0 for "
            f"{len(unknown)} of them, first class {unknown[0]} (target {q[unknown[0]].item():g})"
        )
    if impossible.any():
        classes = impossible.nonzero().flatten().tolist()
        warnings.warn(
            f"target of adjust is 0 for {len(classes)} of {len(q)} classes (first class "
            f"{classes[0]}): they get probability 0",
            stacklevel=3,
        )
    ratio = torch.where(p == q, torch.tensor(-0.0, dtype=torch.float64), q.log() - p.log())
    return ratio.masked_fill(impossible, -torch.inf)


@overload
def adjust(
    logits: Tensor, expressed: Prior, target: Prior, *, out: Tensor | None = None
) -> Tensor: ...
@overload
def adjust(
    logits: ArrayLike, expressed: Prior, target: Prior, *, out: Array | None = None
) -> Array: ...
def adjust(
    logits: Tensor | ArrayLike,
    expressed: Prior,
    target: Prior,
    *,
    out: Tensor | Array | None = None,
) -> Tensor | Array:
    """Turns logits that express one prior into logits that express another.

    logits + log target - log expressed (Saerens et al., Neural Computation 2002, equation 2.4; the
    test rule of Menon et al., ICLR 2021, and of Hong et al.'s PC-Softmax and LADE, CVPR 2021).
    Adjusting to the prior already expressed changes nothing, bit for bit. NaN in `logits` stays
    NaN.

    Args:
        logits: (..., num_classes), unnormalised natural-log scores of any floating type: a tensor,
            an array, a list or a DataFrame. The sum is formed in float32 or better and returned in
            the type of `logits`.
        expressed: prior that `logits` express.
        target: prior to express. A class with probability 0 gets the logit -inf, with a warning.
        out: where the result is written; `logits` itself works in place, without a copy. Not for
            logits that require a gradient.
    Returns: (..., num_classes), a tensor for a tensor, else an array.
    Raises:
        ValueError: when a prior is not one, its length is wrong, `expressed` is 0 for a class that
            `target` allows, or `logits` are probabilities, in ten rows or more.

    Examples:
        >>> logits = torch.zeros(1, 2)
        >>> adjust(logits, [0.5, 0.5], [0.8, 0.2]).softmax(dim=1)
        tensor([[0.8000, 0.2000]])
    """
    if not isinstance(logits, Tensor):
        logits = np.asarray(logits)
    if logits.ndim == 0:
        raise InputError("logits of adjust must have shape (..., num_classes), got a single number")
    if not (
        logits.is_floating_point()
        if isinstance(logits, Tensor)
        else np.issubdtype(logits.dtype, np.floating)
    ):
        raise InputError(f"logits of adjust must be floating-point, got {logits.dtype}")
    refuse_probabilities(as_tensor(logits, "logits of adjust"), "logits of adjust")
    ratio = log_ratio(expressed, target, logits.shape[-1])
    kinds = isinstance(out, Tensor), isinstance(logits, Tensor)
    if out is not None and (kinds[0] != kinds[1] or out.shape != logits.shape):
        raise InputError(
            f"out of adjust must be of the kind and shape of logits, {type(logits).__name__} "
            f"{tuple(logits.shape)}, got {type(out).__name__} {tuple(out.shape)}"
        )
    if isinstance(logits, Tensor):
        assert out is None or isinstance(out, Tensor)
        return _add(logits, ratio, out)
    assert out is None or isinstance(out, np.ndarray)
    return _add_array(logits, ratio, out)


def _add(logits: Tensor, ratio: Tensor, out: Tensor | None = None) -> Tensor:
    """Adds one number per class in float32 or better, and returns the input's type."""
    offset = ratio.to(logits.device, torch.promote_types(logits.dtype, torch.float32))
    if out is not None:
        return torch.add(logits, offset, out=out)
    return (logits + offset).to(logits.dtype)


def _add_array(logits: Array, ratio: Tensor, out: Array | None = None) -> Array:
    result: Array = np.empty_like(logits) if out is None else out
    wide = np.promote_types(logits.dtype, np.float32)
    # NumPy converts 16-bit data in blocks, so no wide copy of the matrix is made.
    np.add(logits, ratio.numpy().astype(wide), out=result, dtype=wide, casting="same_kind")
    return result


class PriorAdjusted(nn.Module):
    """A classifier under another prior: any module or function with logits, then `adjust`.

    Both priors are in the `state_dict`, in float64, whatever `.half()` or `.to()` do to the model;
    a missing one is an error when loading, as for a weight.

    Args:
        model: maps its inputs to logits (..., num_classes).
        expressed: prior that those logits express.
        target: prior to predict under. Default: `expressed`, which changes nothing.

    Attributes:
        expressed: (num_classes,), float64.
        target: (num_classes,), float64; can be set to any prior, or to None for `expressed`.

    Raises: ValueError: as `adjust`.

    Examples:
        >>> model = PriorAdjusted(nn.Identity(), expressed=[0.9, 0.1])
        >>> model.target = [0.5, 0.5]
        >>> model(torch.tensor([[0.9, 0.1]]).log()).softmax(dim=1)
        tensor([[0.5000, 0.5000]])
    """

    def __init__(
        self,
        model: nn.Module | Callable[..., Tensor],
        expressed: Prior,
        target: Prior | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._set(expressed, expressed if target is None else target)

    @property
    def expressed(self) -> Tensor:
        """The prior that the wrapped model expresses."""
        return self._expressed

    @property
    def target(self) -> Tensor:
        """The prior that the output expresses."""
        return self._target

    @target.setter
    def target(self, target: Prior | None) -> None:
        self._set(self._expressed, self._expressed if target is None else target)

    def _set(self, expressed: Prior, target: Prior) -> None:
        ratio = log_ratio(expressed, target)
        self._expressed = probabilities(expressed, "expressed of PriorAdjusted")
        self._target = probabilities(target, "target of PriorAdjusted")
        self._ratio = ratio

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        """Logits of the wrapped model, expressing `target`."""
        logits = self.model(*args, **kwargs)
        if logits.shape[-1] != len(self._ratio):
            raise InputError(
                f"model of PriorAdjusted must give {len(self._ratio)} classes, as its priors have, "
                f"got shape {tuple(logits.shape)}"
            )
        return _add(logits, self._ratio)

    def get_extra_state(self) -> Tensor:
        """Both priors, (2, num_classes): not buffers, which `.half()` would round."""
        return torch.stack([self._expressed, self._target])

    def set_extra_state(self, state: Tensor) -> None:
        """Restores both priors from a `state_dict`."""
        self._set(*state.to("cpu", torch.float64).unbind())

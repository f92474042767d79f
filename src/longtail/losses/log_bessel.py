"""Logarithm of the modified Bessel function of the first kind, for von Mises-Fisher densities."""

import math
from typing import Any

import torch
from torch import Tensor

# Order from which the asymptotic expansion is accurate to 1e-11 for any argument.
LARGE_ORDER = 64.0


def log_bessel(order: float, x: Tensor) -> Tensor:
    """log(I_order(x) / x^order), smooth and finite for every x >= 0.

    For a large order, the uniform expansion 10.41.3 of the NIST Digital Library of Mathematical
    Functions up to its fourth term; for a small one, the expansion of a larger order and the
    downward recurrence 10.29.1, which is stable. The derivative is I_(order + 1)(x) / I_order(x),
    in [0, 1). Second and higher derivatives are those of the expansion. Float64 throughout: values
    grow with x and their differences matter.

    Args:
        order: 0 or more.
        x: any shape, 0 or more.

    Returns: shape of x, float64.

    Examples:
        >>> log_bessel(0.5, torch.tensor(1.0)).exp()  # sqrt(2 / pi) sinh(1)
        tensor(0.9377, dtype=torch.float64)
    """
    value: Tensor = _LogBessel.apply(x.double(), order)[0]
    return value


class _LogBessel(torch.autograd.Function):
    """The value with the ratio, which is its derivative, as a second result."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: float) -> tuple[Tensor, Tensor]:
        return _value_and_ratio(x, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, ...]) -> None:
        x, ctx.order = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        x, ratio = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a higher derivative, which needs the ratio's graph
            ratio = _value_and_ratio(x, ctx.order)[1]
        return grad * ratio, None


def _value_and_ratio(x: Tensor, order: float) -> tuple[Tensor, Tensor]:
    steps = max(0, math.ceil(LARGE_ORDER - order))
    value, ratio = _expansion(x, order + steps)
    for lower in (order + step for step in reversed(range(steps))):
        # I_lower = (2 (lower + 1) / x) I_(lower + 1) + I_(lower + 2), divided by x^lower
        below = 2 * (lower + 1) + x * ratio
        value, ratio = value + below.log(), x / below
    return value, ratio


def _expansion(x: Tensor, order: float) -> tuple[Tensor, Tensor]:
    """Uniform asymptotic expansion, and its derivative.

    z is x / order, s is sqrt(1 + z^2), t is 1 / s; u_k are the polynomials 10.41.10.
    """
    z = x / order
    s = torch.sqrt(1 + z * z)
    t = 1 / s
    t2 = t * t
    series = slope = torch.zeros_like(t)  # sum of u_k(t) / order^k, and its derivative in t
    power = torch.ones_like(t) / order  # t^(k - 1) / order^k
    for k, coefficients in enumerate(_POLYNOMIALS, start=1):
        inner = inner_slope = torch.zeros_like(t)  # u_k(t) / t^k, by Horner's rule in t^2
        for c in reversed(coefficients):
            inner_slope = inner_slope * t2 + inner
            inner = inner * t2 + c
        series = series + power * t * inner
        slope = slope + power * (k * inner + 2 * t2 * inner_slope)
        power = power * t / order
    value = order * (s - torch.log1p(s) - math.log(order)) - 0.5 * torch.log(s)
    value = value - 0.5 * math.log(2 * math.pi * order) + torch.log1p(series)
    ratio = z * (1 / (1 + s) - t2 / (2 * order) - t * t2 * slope / (order * (1 + series)))
    return value, ratio


_POLYNOMIALS = (
    (3 / 24, -5 / 24),
    (81 / 1152, -462 / 1152, 385 / 1152),
    (30375 / 414720, -369603 / 414720, 765765 / 414720, -425425 / 414720),
    (
        4465125 / 39813120,
        -94121676 / 39813120,
        349922430 / 39813120,
        -446185740 / 39813120,
        185910725 / 39813120,
    ),
)

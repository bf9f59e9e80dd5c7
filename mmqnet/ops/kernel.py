# Copyright (c) mmqnet developers. All rights reserved.
"""The compiled CPU kernel, where it was built.

Everywhere else :mod:`mmqnet.ops.plain` computes the same.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

try:
    from . import _C  # type: ignore[attr-defined]  # noqa: F401  registers torch.ops.mmqnet
except ImportError as error:
    _UNAVAILABLE: str | None = str(error)
else:
    _UNAVAILABLE = None

# 'auto' takes what is fastest; 'plain' turns the kernel off; the others force one way of the
# kernel, for tests.
_STRATEGIES = {'auto': -1, 'dense': 0, 'window': 1, 'table': 2, 'unit': 3}
_implementation: contextvars.ContextVar[str] = contextvars.ContextVar(
    'implementation', default='auto'
)


def kernel_unavailable() -> str | None:
    """None if the compiled kernel can be used, else the reason why it cannot."""
    return _UNAVAILABLE


def kernel_in_use() -> bool:
    """Whether the compiled kernel is there and has not been turned off."""
    return _UNAVAILABLE is None and _implementation.get() != 'plain'


@contextlib.contextmanager
def use_implementation(name: str) -> Iterator[None]:
    """Force an implementation inside a with statement.

    One of 'auto', 'plain', 'dense', 'window', 'table' or 'unit', which is 'dense' where levels and
    thresholds do not allow it. For tests and benchmarks; the backward pass takes what its forward
    pass took.
    """
    if name != 'plain' and name not in _STRATEGIES:
        raise ValueError(
            f"`name` should be 'plain' or one of {list(_STRATEGIES)}, but got {name!r}"
        )
    token = _implementation.set(name)
    try:
        yield
    finally:
        _implementation.reset(token)


class Call(NamedTuple):
    """How the kernel sees a tensor: rows of ``inner`` elements.

    Row r has the scales of channel r % channels. ``inner`` is 0 where one pair of scales serves
    all.
    """

    inner: int
    strategy: int


def plan_call(x: Tensor, alpha: Tensor, beta: Tensor) -> Call | None:
    """How to run the kernel on these arguments, or None where only the plain implementation can."""
    if not kernel_in_use() or x.device.type != 'cpu':
        return None
    strategy = _STRATEGIES[_implementation.get()]
    if alpha.numel() == 1 and beta.numel() == 1:
        return Call(0, strategy)
    dims = {d - s.dim() for s in (alpha, beta) for d, size in enumerate(s.shape) if size > 1}
    if len(dims) != 1:
        return None
    dim = dims.pop() + x.dim()
    inner = x.shape[dim + 1 :].numel()
    if x.is_contiguous() or (
        dim == 0 and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    ):
        return Call(inner, strategy)
    return None


def soft_quantize(
    call: Call,
    x: Tensor,
    levels: Tensor,
    thresholds: Tensor,
    alpha: Tensor,
    beta: Tensor,
    temperature: float,
    value_at: float,
    slope_at: float,
) -> Tensor:
    """The soft function at ``temperature``, differentiable once.

    Its gradients are those of :func:`mmqnet.ops.plain.soft_backward` at the temperatures
    ``value_at`` and ``slope_at``.
    """
    return torch.ops.mmqnet.soft_quantize.default(
        x,
        levels,
        thresholds,
        alpha,
        beta,
        call.inner,
        temperature,
        value_at,
        slope_at,
        call.strategy,
    )


def hard_quantize(
    call: Call, x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor
) -> Tensor:
    """As :func:`mmqnet.ops.plain.hard_forward`, in float32."""
    return torch.ops.mmqnet.hard_quantize.default(x, levels, thresholds, alpha, beta, call.inner)

# Copyright (c) mmqnet developers. All rights reserved.
"""Which implementation computes: the compiled CPU kernel where it was built, Triton's on GPUs.

Everywhere else :mod:`mmqnet.ops.plain` computes the same.
"""

import contextlib
import contextvars
import functools
import importlib.util
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from . import plain

try:
    from . import _C  # type: ignore[attr-defined]  # noqa: F401  registers torch.ops.mmqnet
except ImportError as error:
    _UNAVAILABLE: str | None = str(error)
else:
    _UNAVAILABLE = None

# 'auto' takes what is fastest; the others force one way of the CPU kernel, for tests.
_STRATEGIES = {'auto': -1, 'dense': 0, 'window': 1, 'table': 2, 'unit': 3}
_implementation: contextvars.ContextVar[str] = contextvars.ContextVar(
    'implementation', default='auto'
)


def kernel_unavailable() -> str | None:
    """None if the compiled kernel can be used, else the reason why it cannot."""
    return _UNAVAILABLE


def kernel_in_use() -> bool:
    """Whether the compiled kernel is there and has not been turned off."""
    return _UNAVAILABLE is None and _implementation.get() in _STRATEGIES


@contextlib.contextmanager
def use_implementation(name: str) -> Iterator[None]:
    """Force an implementation inside a with statement.

    One of 'auto', 'plain', 'triton', 'dense', 'window', 'table' or 'unit', which is 'dense' where
    levels and thresholds do not allow it. 'triton' is 'plain' for what Triton's kernels do not
    take; on tensors of the CPU they run in its interpreter only. For tests and benchmarks; the
    backward pass takes what its forward pass took.
    """
    names = [*_STRATEGIES, 'plain', 'triton']
    if name not in names:
        raise ValueError(f'`name` should be one of {names}, but got {name!r}')
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


def row_length(x: Tensor, alpha: Tensor, beta: Tensor) -> int | None:
    """``inner`` of :class:`Call`, or None where memory is not made of such rows."""
    if alpha.numel() == 1 and beta.numel() == 1:
        return 0
    dims = {d - s.dim() for s in (alpha, beta) for d, size in enumerate(s.shape) if size > 1}
    if len(dims) != 1:
        return None
    dim = dims.pop() + x.dim()
    if x.is_contiguous() or (
        dim == 0 and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    ):
        return x.shape[dim + 1 :].numel()
    return None


def plan_call(x: Tensor, alpha: Tensor, beta: Tensor) -> Call | None:
    """How to run the CPU kernel on these arguments, or None where it cannot."""
    if not kernel_in_use() or x.device.type != 'cpu':
        return None
    inner = row_length(x, alpha, beta)
    return None if inner is None else Call(inner, _STRATEGIES[_implementation.get()])


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


class Implementation(Protocol):
    """The functions of :mod:`mmqnet.ops.plain`, to which an autograd function is added."""

    def soft_forward(
        self,
        x: Tensor,
        levels: Tensor,
        thresholds: Tensor,
        alpha: Tensor,
        beta: Tensor,
        temperature: float,
    ) -> Tensor:
        """The soft function."""

    def soft_backward(
        self,
        grad: Tensor,
        x: Tensor,
        levels: Tensor,
        thresholds: Tensor,
        alpha: Tensor,
        beta: Tensor,
        temperature: float,
        backward_temperature: float,
        need_thresholds: bool,
    ) -> plain.Gradients:
        """Its gradients."""

    def hard_forward(
        self, x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor
    ) -> Tensor:
        """The hard function."""


def implementation_for(x: Tensor, alpha: Tensor, beta: Tensor) -> Implementation:
    """What computes where the CPU kernel does not: Triton's kernels on a GPU, or torch operations.

    Raises:
        RuntimeError: If Triton is forced but not installed.
    """
    name = _implementation.get()
    if (
        name == 'plain'
        or not (name == 'triton' or _runs_triton(x.device))
        or x.dtype != torch.float32
        or row_length(x, alpha, beta) is None
    ):
        return plain
    if not _has_triton():
        raise RuntimeError("use_implementation('triton') needs the package `triton`")
    from . import gpu

    return gpu


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec('triton') is not None


@functools.cache
def _runs_triton(device: torch.device) -> bool:
    """Whether Triton compiles for the device: an error of its compiler is an error then."""
    return (
        device.type == 'cuda'  # ROCm's too
        and _has_triton()
        and torch.cuda.get_device_capability(device) >= (7, 0)
    )

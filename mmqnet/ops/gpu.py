# Copyright (c) mmqnet developers. All rights reserved.
"""The quantization function on GPUs, fused, in float32; with the interface of ``plain``.

Imported only where Triton is. Nothing is compiled for a temperature or a number of levels, so that
training compiles in its first step only.
"""

import contextlib
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from . import gpu_kernels, plain
from .kernel import row_length

_TILE = 1024
_WARPS = 4


class _Rows(NamedTuple):
    """Memory as rows of ``inner`` elements, row r with the scales of channel r % channels.

    They are cut into tiles of 1024 elements, ``columns`` of them beside each other.
    """

    channels: int
    rows: int
    inner: int
    columns: int
    tile_rows: int
    tile_columns: int


def _rows(x: Tensor, alpha: Tensor, beta: Tensor) -> _Rows:
    inner = row_length(x, alpha, beta) or x.numel()
    channels = max(alpha.numel(), beta.numel())
    width = _TILE
    if channels > 1:
        width = min(width, triton.next_power_of_2(max(inner, 1)))
    rows = x.numel() // max(inner, 1)
    return _Rows(channels, rows, inner, triton.cdiv(inner, width), _TILE // width, width)


def _launch(
    kernel: Any, layout: _Rows, tensors: tuple[Tensor, ...], function: tuple, scales: tuple
) -> None:
    """Runs a kernel over all tiles: tensors of x's size, the function, then alpha and beta."""
    programs = triton.cdiv(layout.rows, layout.tile_rows) * layout.columns
    if not programs:
        return
    levels, thresholds, *temperatures = function
    n = len(thresholds)
    by_channel = (s.reshape(-1).expand(layout.channels).contiguous() for s in scales)
    x = tensors[0]
    # Triton launches on the current device.
    with torch.cuda.device_of(x) if x.is_cuda else contextlib.nullcontext():
        kernel[(programs,)](
            *tensors,
            levels.contiguous(),
            thresholds.contiguous(),
            n,
            1 << (n.bit_length() - 1),
            *temperatures,
            *by_channel,
            *layout,
            num_warps=_WARPS,
        )


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor with the strides of ``like``."""
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like).copy_(tensor)


def soft_forward(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor, temperature: float
) -> Tensor:
    """As :func:`mmqnet.ops.plain.soft_forward`, in float32."""
    y = torch.empty_like(x)  # dense, with x's strides if x is
    layout = _rows(x, alpha, beta)
    function = (levels, thresholds, temperature)
    _launch(gpu_kernels.soft_forward, layout, (_laid_out(x, y), y), function, (alpha, beta))
    return y


def soft_backward(
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
    """As :func:`mmqnet.ops.plain.soft_backward`, which computes gradients of thresholds."""
    temperatures = (temperature, backward_temperature)
    if need_thresholds:
        arguments = (grad, x, levels, thresholds, alpha, beta, *temperatures)
        return plain.soft_backward(*arguments, need_thresholds)
    grad_x = torch.empty_like(x)
    layout = _rows(x, alpha, beta)
    sums = x.new_empty(2, layout.rows, layout.columns)
    tensors = (_laid_out(grad, grad_x), _laid_out(x, grad_x), grad_x, sums)
    same = temperature == backward_temperature
    function = (levels, thresholds, *temperatures, same)
    _launch(gpu_kernels.soft_backward, layout, tensors, function, (alpha, beta))
    # Always in the same order.
    per_channel = (2, layout.rows // layout.channels, layout.channels, layout.columns)
    by_alpha, by_beta = sums.view(per_channel).sum((1, 3), dtype=torch.float64)
    return plain.Gradients(grad_x, _as_scale(by_alpha, alpha), _as_scale(by_beta, beta), None)


def _as_scale(by_channel: Tensor, scale: Tensor) -> Tensor:
    """Gradients by channel as those of the scale, which may serve all channels."""
    if scale.numel() != by_channel.numel():
        by_channel = by_channel.sum()
    return by_channel.reshape(scale.shape).to(scale.dtype)


def hard_forward(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor
) -> Tensor:
    """As :func:`mmqnet.ops.plain.hard_forward`, in float32."""
    y = torch.empty_like(x)
    layout = _rows(x, alpha, beta)
    tensors = (_laid_out(x, y), y)
    _launch(gpu_kernels.hard_forward, layout, tensors, (levels, thresholds), (alpha, beta))
    return y

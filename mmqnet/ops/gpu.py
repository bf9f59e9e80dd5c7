# Copyright (c) mmqnet developers. All rights reserved.
"""The operators on GPUs, fused, in float32; with the functions of :mod:`mmqnet.ops.plain`.

Imported only where Triton is. Nothing is compiled for a temperature or a number of levels, so that
training compiles in its first step only; the kernels load the temperature themselves, so that no
step waits for the GPU.
"""

import contextlib
import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from . import gpu_kernels, plain
from .arguments import check_function, check_temperature, scaled_dims, span_of

_TILE = 1024
_WARPS = 4


class _Tiles(NamedTuple):
    """Rows of ``inner`` elements, row r with the scales of channel r % channels.

    They are cut into tiles of 1024 elements, ``columns`` of them beside each other.
    """

    channels: int
    rows: int
    inner: int
    columns: int
    tile_rows: int
    tile_columns: int


class _Rows:
    """How the memory of x is made of rows that share one alpha and beta."""

    def __init__(self, x: Tensor, alpha: Tensor, beta: Tensor):
        self.x, self.dims = x, scaled_dims(x, (alpha, beta))
        first, end = self.dims
        self.shape = x.shape[first:end]
        inner = x.shape[end:].numel() if end else x.numel()
        width = min(_TILE, triton.next_power_of_2(max(inner, 1))) if end else _TILE
        self.tiles = _Tiles(
            channels=self.shape.numel(),
            rows=x.numel() // max(inner, 1),
            inner=inner,
            columns=triton.cdiv(inner, width),
            tile_rows=_TILE // width,
            tile_columns=width,
        )

    def empty(self) -> Tensor:
        """Return memory for a tensor like x in the order of the rows."""
        x, end = self.x, self.dims[1]
        if not end or (
            end == 1 and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        ):
            return torch.empty_like(x)
        return x.new_empty(x.shape)

    def by_channel(self, scale: Tensor) -> Tensor:
        """Return a scale as one number for each channel."""
        shaped = scale.reshape(span_of(scale, self.x, self.dims)).expand(self.shape)
        return shaped.contiguous().view(-1)

    def as_scale(self, by_channel: Tensor, scale: Tensor) -> Tensor:
        """Return gradients by channel as those of a scale, which may serve several channels."""
        summed = by_channel.view(self.shape).sum_to_size(span_of(scale, self.x, self.dims))
        return summed.reshape(scale.shape).to(scale.dtype)


def _launch(
    kernel: Any, rows: _Rows, tensors: tuple[Tensor, ...], function: tuple, scales: tuple
) -> None:
    """Run a kernel over all tiles: tensors of x's size, the function, then alpha and beta."""
    tiles = rows.tiles
    programs = triton.cdiv(tiles.rows, tiles.tile_rows) * tiles.columns
    if not programs:
        return
    levels, thresholds, *temperatures = function
    n = len(thresholds)
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
            *(rows.by_channel(scale) for scale in scales),
            *tiles,
            num_warps=_WARPS,
        )


def _with_strides_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the tensor with the strides that ``torch.empty_like(like)`` has."""
    if tensor.stride() == like.stride():
        return tensor
    return torch.empty_like(like).copy_(tensor)


def _on_device(temperature: Tensor, x: Tensor) -> Tensor:
    """Return the temperature where a kernel can load it, in float32."""
    check_temperature(temperature)
    return temperature.to(x.device, x.dtype, non_blocking=True)


def soft_quantize(
    x: Tensor,
    levels: Tensor,
    thresholds: Tensor,
    alpha: Tensor,
    beta: Tensor,
    temperature: Tensor,
    backward_temperature: float | None = None,
    surrogate_temperature: float | None = None,
) -> Tensor:
    """Compute soft quantization, eq. 7."""
    check_function(x, levels, thresholds, dict(alpha=alpha, beta=beta))
    rows = _Rows(x, alpha, beta)
    y = rows.empty()
    function = (levels, thresholds, _on_device(temperature, x))
    tensors = (_with_strides_of(x, y), y)
    _launch(gpu_kernels.soft_forward, rows, tensors, function, (alpha, beta))
    return _with_strides_of(y, x)


def soft_quantize_backward(
    grad: Tensor,
    x: Tensor,
    levels: Tensor,
    thresholds: Tensor,
    alpha: Tensor,
    beta: Tensor,
    temperature: Tensor,
    backward_temperature: float | None,
    surrogate_temperature: float | None,
    need_thresholds: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, alpha and beta; ``plain`` computes those of thresholds too."""
    temperatures = (temperature, backward_temperature, surrogate_temperature)
    if need_thresholds:
        arguments = (grad, x, levels, thresholds, alpha, beta, *temperatures)
        return plain.soft_quantize_backward(*arguments, need_thresholds)
    rows = _Rows(x, alpha, beta)
    tiles = rows.tiles
    grad_x = rows.empty()
    sums = x.new_empty(2, tiles.rows, tiles.columns)
    tensors = (_with_strides_of(grad, grad_x), _with_strides_of(x, grad_x), grad_x, sums)
    surrogate = math.inf if surrogate_temperature is None else surrogate_temperature
    exact = backward_temperature is None
    bounds = (surrogate, 0.0 if exact else backward_temperature, exact)
    function = (levels, thresholds, _on_device(temperature, x), *bounds)
    _launch(gpu_kernels.soft_backward, rows, tensors, function, (alpha, beta))
    # Always in the same order.
    per_channel = (2, tiles.rows // max(tiles.channels, 1), tiles.channels, tiles.columns)
    by_alpha, by_beta = sums.view(per_channel).sum((1, 3), dtype=torch.float64)
    return (
        _with_strides_of(grad_x, x),
        thresholds.new_empty(0),
        rows.as_scale(by_alpha, alpha),
        rows.as_scale(by_beta, beta),
    )


def hard_quantize(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Tensor, beta: Tensor
) -> Tensor:
    """Compute hard quantization, eq. 5."""
    check_function(x, levels, thresholds, dict(alpha=alpha, beta=beta))
    rows = _Rows(x, alpha, beta)
    y = rows.empty()
    tensors = (_with_strides_of(x, y), y)
    _launch(gpu_kernels.hard_forward, rows, tensors, (levels, thresholds), (alpha, beta))
    return _with_strides_of(y, x)

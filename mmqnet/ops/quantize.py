# Copyright (c) mmqnet developers. All rights reserved.
"""The quantization function of Quantization Networks (arXiv 1911.09464), soft and hard."""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import kernel, plain

Scale = Tensor | float


def soft_quantize(
    x: Tensor,
    levels: Tensor,
    thresholds: Tensor,
    alpha: Scale,
    beta: Scale,
    temperature: Scale,
    backward_temperature: Scale | None = None,
    surrogate_temperature: Scale | None = None,
) -> Tensor:
    """Soft quantization, eq. 7: ``alpha * (Y_0 + sum_i s_i * sigmoid(T * (beta * x - b_i)))``.

    Differentiable once in x, alpha, beta and thresholds. Keeps x and tensors of the size of the
    levels and scales for the backward pass and nothing else. Half-precision inputs are computed in
    float32; inside autocast the result is float32 too.

    Args:
        x (Tensor): Floating point, any shape.
        levels (Tensor): (n + 1,), Y, strictly increasing.
        thresholds (Tensor): (n,), b in the scaled domain, not decreasing.
        alpha (Tensor | float): Output scale, a scalar or broadcastable to x, such as (O, 1, 1, 1).
        beta (Tensor | float): Input scale, likewise.
        temperature (Tensor | float): T > 0, a number or a 0-d tensor.
        backward_temperature (Tensor | float, optional): Take the slope ``D`` of the sigmoids in the
            backward pass at this temperature, and multiply it by T. Defaults to None, the exact
            derivative.
        surrogate_temperature (Tensor | float, optional): Take all gradients of the soft function at
            this temperature instead. Defaults to None.

    Returns:
        Tensor: Like x, in x's memory format.

    Raises:
        TypeError: An argument of a wrong type.
        ValueError: Shapes that do not fit, a temperature that is not positive and finite, or both
            a backward and a surrogate temperature.
    """
    _check(x, thresholds, levels)
    work, out_dtype = _working_precision(x)
    temperature = _temperature(temperature, 'temperature')
    value_at = slope_at = temperature
    if surrogate_temperature is not None:
        value_at = slope_at = _temperature(surrogate_temperature, 'surrogate_temperature')
    if backward_temperature is not None:
        if surrogate_temperature is not None:
            raise ValueError(
                '`backward_temperature` or `surrogate_temperature` should be given, but got both: '
                f'{backward_temperature} and {surrogate_temperature}'
            )
        slope_at = _temperature(backward_temperature, 'backward_temperature')
    alpha, beta = _scale(alpha, work, 'alpha'), _scale(beta, work, 'beta')
    arguments = (work, levels.to(work), thresholds.to(work), alpha, beta)
    temperatures = (temperature, value_at, slope_at)
    call = kernel.plan_call(work, alpha, beta)
    if call is None:
        implementation = kernel.implementation_for(work, alpha, beta)
        out = _SoftQuantize.apply(implementation, *arguments, *temperatures)
    else:
        out = kernel.soft_quantize(call, *arguments, *temperatures)
    return out.to(out_dtype)


@torch.no_grad()
def hard_quantize(
    x: Tensor, levels: Tensor, thresholds: Tensor, alpha: Scale, beta: Scale
) -> Tensor:
    """Hard quantization, eq. 5: ``alpha * (Y_0 + sum_i s_i * [beta * x >= b_i])``.

    Piecewise constant, so there is nothing to learn through it: the result has no autograd history.

    Args:
        x (Tensor): Floating point, any shape.
        levels (Tensor): (n + 1,), Y, strictly increasing.
        thresholds (Tensor): (n,), b in the scaled domain, not decreasing.
        alpha (Tensor | float): Output scale, a scalar or broadcastable to x.
        beta (Tensor | float): Input scale, likewise.

    Returns:
        Tensor: Like x, in x's memory format, with values in alpha * Y.

    Raises:
        TypeError: An argument of a wrong type.
        ValueError: Shapes that do not fit.
    """
    _check(x, thresholds, levels)
    work, out_dtype = _working_precision(x)
    alpha, beta = _scale(alpha, work, 'alpha'), _scale(beta, work, 'beta')
    arguments = (work, levels.to(work), thresholds.to(work), alpha, beta)
    call = kernel.plan_call(work, alpha, beta) if work.dtype == torch.float32 else None
    if call is None:
        out = kernel.implementation_for(work, alpha, beta).hard_forward(*arguments)
    else:
        out = kernel.hard_quantize(call, *arguments)
    return out.to(out_dtype)


@torch.no_grad()
def hard_codes(x: Tensor, thresholds: Tensor, beta: Scale) -> Tensor:
    """The level indices of :func:`hard_quantize`: the number of ``b_i <= beta * x``.

    ``beta * x`` is rounded to the precision of the computation, as in :func:`hard_quantize`. NaN
    has no level; its index is n.

    Args:
        x (Tensor): Floating point, any shape.
        thresholds (Tensor): (n,), b in the scaled domain, not decreasing.
        beta (Tensor | float): Input scale, a scalar or broadcastable to x.

    Returns:
        Tensor: int32, 0 to n, of x's shape.

    Raises:
        TypeError: An argument of a wrong type.
        ValueError: Shapes that do not fit.
    """
    _check(x, thresholds)
    work, _ = _working_precision(x)
    return plain.hard_codes(work, thresholds.to(work), _scale(beta, work, 'beta'))


class _SoftQuantize(torch.autograd.Function):
    """Recomputes in the backward pass, so that x is the only tensor of its size that is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        implementation: kernel.Implementation,
        x: Tensor,
        levels: Tensor,
        thresholds: Tensor,
        alpha: Tensor,
        beta: Tensor,
        temperature: float,
        value_at: float,
        slope_at: float,
    ) -> Tensor:
        ctx.save_for_backward(x, levels, thresholds, alpha, beta)
        ctx.implementation, ctx.temperatures = implementation, (value_at, slope_at)
        return implementation.soft_forward(x, levels, thresholds, alpha, beta, temperature)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need_thresholds = ctx.needs_input_grad[3]
        arguments = (grad, *ctx.saved_tensors, *ctx.temperatures, need_thresholds)
        grads = ctx.implementation.soft_backward(*arguments)
        return None, grads.x, None, grads.thresholds, grads.alpha, grads.beta, None, None, None


def _check(x: Tensor, thresholds: Tensor, levels: Tensor | None = None) -> None:
    """Check types and shapes; a quantizer checks once that its levels increase."""
    if not isinstance(x, Tensor):
        raise TypeError(f'`x` should be a tensor, but got {type(x).__name__}')
    if not x.is_floating_point():
        raise TypeError(f'`x` should be a floating point tensor, but got {x.dtype}')
    for name, value in (('thresholds', thresholds), ('levels', levels)):
        if value is None and name == 'levels':
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f'`{name}` should be a tensor, but got {type(value).__name__}')
        if value.dim() != 1 or not len(value):
            raise ValueError(
                f'`{name}` should be a vector of at least one number, '
                f'but got shape {tuple(value.shape)}'
            )
    if levels is not None and len(thresholds) != len(levels) - 1:
        raise ValueError(
            f'`thresholds` should be one fewer than the {len(levels)} `levels`, '
            f'but got {len(thresholds)} thresholds'
        )


def _working_precision(x: Tensor) -> tuple[Tensor, torch.dtype]:
    """X in float32 or float64, and the dtype of the result."""
    if x.dtype in (torch.float32, torch.float64):
        return x, x.dtype
    work = x.float()
    return work, work.dtype if torch.is_autocast_enabled(x.device.type) else x.dtype


def _scale(value: Scale, x: Tensor, name: str) -> Tensor:
    """A scale as a tensor of x's dtype on x's device, checked to broadcast to x."""
    if isinstance(value, Tensor):
        scale = value.to(x)
    elif isinstance(value, Real):
        scale = x.new_tensor(float(value))
    else:
        raise TypeError(f'`{name}` should be a tensor or a number, but got {type(value).__name__}')
    if scale.numel() != 1:
        sizes = zip(reversed(scale.shape), reversed(x.shape), strict=False)
        if scale.dim() > x.dim() or any(s not in (1, size) for s, size in sizes):
            raise ValueError(
                f'`{name}` should be a scalar or broadcastable to x of shape {tuple(x.shape)}, '
                f'but got shape {tuple(scale.shape)}'
            )
    return scale


def _temperature(value: Scale, name: str) -> float:
    """A temperature as a number."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f'`{name}` should be a number or a 0-d tensor, but got shape {tuple(value.shape)}'
            )
    elif not isinstance(value, Real):
        raise TypeError(
            f'`{name}` should be a number or a 0-d tensor, but got {type(value).__name__}'
        )
    number = float(value)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f'`{name}` should be positive and finite, but got {number}')
    return number

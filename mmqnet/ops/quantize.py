# Copyright (c) mmqnet developers. All rights reserved.
"""The quantization function of Quantization Networks (arXiv 1911.09464), soft and hard.

These functions take numbers as well as tensors, and half precision, and call the operators of
:mod:`mmqnet.ops.library`. Where all arguments are tensors of x's dtype and device they add next to
nothing, and ``torch.compile`` and ``torch.export`` see the operator alone.
"""

from numbers import Real

import torch
from torch import Tensor

from mmqnet.checks import check_number

from . import library

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
        temperature (Tensor | float): T > 0, a number or a 0-d tensor. A tensor on a GPU is not
            checked: that would wait for it.
        backward_temperature (Tensor | float, optional): Take the slope ``D`` of the sigmoids in the
            backward pass at this temperature, and multiply it by T. Defaults to None, the exact
            derivative.
        surrogate_temperature (Tensor | float, optional): Take all gradients of the soft function at
            this temperature instead, where it is below T. Defaults to None.

    Returns:
        Tensor: Like x, in x's memory format.

    Raises:
        TypeError: An argument of a wrong type.
        ValueError: Shapes that do not fit, a temperature that is not positive and finite, or both
            a backward and a surrogate temperature.
    """
    work = _working_precision(x)
    if backward_temperature is not None or surrogate_temperature is not None:
        backward_temperature, surrogate_temperature = _backward_temperatures(
            backward_temperature, surrogate_temperature
        )
    out = library.soft_quantize(
        work,
        _vector(levels, work, 'levels'),
        _vector(thresholds, work, 'thresholds'),
        _scale(alpha, work, 'alpha'),
        _scale(beta, work, 'beta'),
        _temperature(temperature, work),
        backward_temperature,
        surrogate_temperature,
    )
    return out if work is x else _result(out, x)


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
    work = _working_precision(x)
    out = library.hard_quantize(
        work,
        _vector(levels, work, 'levels'),
        _vector(thresholds, work, 'thresholds'),
        _scale(alpha, work, 'alpha'),
        _scale(beta, work, 'beta'),
    )
    return out if work is x else _result(out, x)


def hard_codes(x: Tensor, thresholds: Tensor, beta: Scale) -> Tensor:
    """Return the level indices of :func:`hard_quantize`: the number of ``b_i <= beta * x``.

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
    work = _working_precision(x)
    return library.hard_codes(
        work, _vector(thresholds, work, 'thresholds'), _scale(beta, work, 'beta')
    )


def _working_precision(x: Tensor) -> Tensor:
    """Return x in float32 or float64."""
    if not isinstance(x, Tensor):
        raise TypeError(f'`x` should be a tensor, but got {type(x).__name__}')
    if x.dtype is torch.float32 or x.dtype is torch.float64:
        return x
    if not x.is_floating_point():
        raise TypeError(f'`x` should be a floating point tensor, but got {x.dtype}')
    return x.float()


def _result(out: Tensor, x: Tensor) -> Tensor:
    """Return a result of float32 in the precision that is due for half-precision x."""
    return out if torch.is_autocast_enabled(x.device.type) else out.to(x.dtype)


def _like(tensor: Tensor, x: Tensor) -> Tensor:
    """Return the tensor in x's dtype, on x's device."""
    if tensor.dtype is x.dtype and tensor.device == x.device:
        return tensor
    return tensor.to(x.device, x.dtype, non_blocking=True)


def _vector(value: Tensor, x: Tensor, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f'`{name}` should be a tensor, but got {type(value).__name__}')
    return _like(value, x)


def _scale(value: Scale, x: Tensor, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return _like(value, x)
    if not isinstance(value, Real):
        raise TypeError(f'`{name}` should be a tensor or a number, but got {type(value).__name__}')
    return x.new_full((), float(value))  # unlike `new_tensor` it never waits for a GPU


def _temperature(value: Scale, x: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return _like(value, x)
    return x.new_full((), _number(value, 'temperature'))


def _backward_temperatures(
    backward: Scale | None, surrogate: Scale | None
) -> tuple[float | None, float | None]:
    if backward is not None and surrogate is not None:
        raise ValueError(
            '`backward_temperature` or `surrogate_temperature` should be given, but got both: '
            f'{backward} and {surrogate}'
        )
    return (
        None if backward is None else _number(backward, 'backward_temperature'),
        None if surrogate is None else _number(surrogate, 'surrogate_temperature'),
    )


def _number(value: Scale, name: str) -> float:
    """Return a temperature as a number."""
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
    check_number(number, name)
    return number

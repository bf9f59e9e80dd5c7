# Copyright (c) mmqnet developers. All rights reserved.
"""What the operators' implementations in Python ask of their arguments."""

from collections.abc import Iterable

from torch import Tensor

from mmqnet.checks import check_number


def check_function(
    x: Tensor, levels: Tensor | None, thresholds: Tensor, scales: dict[str, Tensor]
) -> None:
    """Check dtypes and shapes of an operator's arguments.

    Args:
        x: Floating point, any shape.
        levels: (n + 1,), or None for an operator that takes none.
        thresholds: (n,).
        scales: Alpha and beta by name, scalars or broadcastable to x.

    Raises:
        TypeError: If x is not floating point, or another tensor not of x's dtype.
        ValueError: If shapes do not fit.
    """
    vectors = (
        {'thresholds': thresholds} if levels is None else dict(thresholds=thresholds, levels=levels)
    )
    _check_dtypes(x, vectors | scales)
    for name, vector in vectors.items():
        _check_vector(vector, name)
    if levels is not None and thresholds.shape[0] != levels.shape[0] - 1:
        raise ValueError(
            f'`thresholds` should be one fewer than the {levels.shape[0]} `levels`, '
            f'but got {thresholds.shape[0]} thresholds'
        )
    for name, scale in scales.items():
        _check_broadcasts(scale, x, name)


def _check_dtypes(x: Tensor, others: dict[str, Tensor]) -> None:
    if not x.is_floating_point():
        raise TypeError(f'`x` should be a floating point tensor, but got {x.dtype}')
    for name, tensor in others.items():
        if tensor.dtype != x.dtype:
            raise TypeError(f'`{name}` should be of the dtype of x, {x.dtype}, not {tensor.dtype}')


def _check_vector(vector: Tensor, name: str) -> None:
    if vector.dim() != 1 or not vector.shape[0]:
        raise ValueError(
            f'`{name}` should be a vector of at least one number, '
            f'but got shape {tuple(vector.shape)}'
        )


def _check_broadcasts(scale: Tensor, x: Tensor, name: str) -> None:
    if scale.numel() == 1:
        return
    sizes = zip(reversed(scale.shape), reversed(x.shape), strict=False)
    if scale.dim() > x.dim() or any(s != 1 and s != size for s, size in sizes):
        raise ValueError(
            f'`{name}` should be a scalar or broadcastable to x of shape {tuple(x.shape)}, '
            f'but got shape {tuple(scale.shape)}'
        )


def check_straight_through(
    grad: Tensor, x: Tensor, y: Tensor, levels: Tensor, alpha: Tensor
) -> None:
    """Check dtypes and shapes of the arguments of a straight-through gradient.

    Args:
        grad: Like x.
        x: Floating point, any shape.
        y: Like x.
        levels: (n + 1,).
        alpha: Scalar or broadcastable to x.

    Raises:
        TypeError: If x is not floating point, or another tensor not of x's dtype.
        ValueError: If shapes do not fit.
    """
    _check_dtypes(x, dict(grad=grad, y=y, levels=levels, alpha=alpha))
    for name, tensor in dict(grad=grad, y=y).items():
        if tensor.shape != x.shape:
            raise ValueError(
                f'`{name}` should be of the shape of x, {tuple(x.shape)}, '
                f'but got shape {tuple(tensor.shape)}'
            )
    _check_vector(levels, 'levels')
    _check_broadcasts(alpha, x, 'alpha')


def check_temperature(temperature: Tensor) -> None:
    """Check that there is one temperature.

    Raises:
        ValueError: If not.
    """
    if temperature.numel() != 1:
        raise ValueError(
            '`temperature` should be a number or a 0-d tensor, '
            f'but got shape {tuple(temperature.shape)}'
        )


def backward_temperatures(
    temperature: Tensor, backward_temperature: float | None, surrogate_temperature: float | None
) -> tuple[float, float]:
    """Return the temperatures of the value and of the slope in the backward pass.

    Waits for the device of ``temperature``.

    Raises:
        ValueError: If it is not positive and finite.
    """
    value_at = float(temperature)
    check_number(value_at, 'temperature')
    if surrogate_temperature is not None:
        value_at = min(value_at, surrogate_temperature)
    return value_at, value_at if backward_temperature is None else backward_temperature


def scaled_dims(x: Tensor, scales: Iterable[Tensor]) -> tuple[int, int]:
    """Return the first dimension of x along which a scale varies, and the end of the last.

    Between them are the dimensions of the channels; (0, 0) if one pair of scales serves all.
    """
    dims = [
        dim
        for scale in scales
        if scale.numel() != 1
        for dim, size in enumerate(scale.shape, x.dim() - scale.dim())
        if size != 1
    ]
    return (min(dims), max(dims) + 1) if dims else (0, 0)


def span_of(scale: Tensor, x: Tensor, dims: tuple[int, int]) -> tuple[int, ...]:
    """Return the sizes of a scale along the dimensions ``dims`` of x."""
    if scale.numel() == 1:
        return (1,) * (dims[1] - dims[0])
    padded = (1,) * (x.dim() - scale.dim()) + tuple(scale.shape)
    return padded[dims[0] : dims[1]]

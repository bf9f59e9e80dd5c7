# Copyright (c) mmqnet developers. All rights reserved.
"""Gradients of a rounding that are passed straight through it (Bengio et al., arXiv 1308.3432)."""

from torch import Tensor

from . import library


def straight_through_backward(
    grad: Tensor, x: Tensor, y: Tensor, levels: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``y = alpha * clip(round(x / alpha), Y_0, Y_n)``, the rounding left out.

    With ``dy/dx = 1`` for x in ``[alpha * Y_0, alpha * Y_n]``, else 0; and ``dy/dalpha`` is
    ``(y - x) / alpha`` there, else the outermost level, ``y / alpha`` (LSQ, arXiv 1902.08153,
    eq. 3 and 5). They cannot be differentiated again.

    Args:
        grad (Tensor): Gradient of y, floating point, of x's shape.
        x (Tensor): float32 or float64, any shape.
        y (Tensor): What x was rounded to, likewise.
        levels (Tensor): (n + 1,), Y, increasing. The outermost ones count.
        alpha (Tensor): Positive, a scalar or broadcastable to x.

    Returns:
        tuple: Gradients of x, in x's memory format, and of ``log(alpha)``, of alpha's shape; and
        the sum of ``grad`` over the x that are clipped, likewise.

    Raises:
        TypeError: An argument of a wrong type.
        ValueError: Shapes that do not fit.
    """
    return library.straight_through_backward(
        grad.to(x.dtype), x, y, levels.to(x.dtype), alpha.to(x.dtype)
    )

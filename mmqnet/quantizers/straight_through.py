"""Hard functions in training: the forward pass rounds, gradients pass as a method says."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmqnet.quantizers.base import Quantizer


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: Tensor) -> Tensor:
        ctx.dtype = surrogate.dtype
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None


def straight_through(quantizer: 'Quantizer', x: Tensor, surrogate: Tensor) -> Tensor:
    """Return the hard function of ``x`` with the gradients of another one.

    Args:
        quantizer: Its ``staircase(x)`` is the forward pass, bit by bit that of the evaluation.
        x: What is quantized, any shape.
        surrogate: A differentiable function of ``x`` and of what the quantizer learns, of the shape
            of ``x``; its value does not matter.
    """
    with torch.no_grad():
        value = quantizer.staircase(x).quantize(x)
    return _Replaced.apply(surrogate, value)

"""Parameters that are frozen in a phase, kept in the autograd graph.

DistributedDataParallel fixes at construction which parameters it waits for: one that is frozen must
still get a gradient, a zero.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class _WithoutGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, compute: Callable[[], Tensor], passing: Tensor | None, *frozen: Tensor
    ) -> Tensor:
        ctx.shapes = [tensor.shape for tensor in frozen]
        output = compute()
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        needs_input, needs_frozen = ctx.needs_input_grad[1], ctx.needs_input_grad[2:]
        zeros = (
            grad_output.new_zeros(shape) if needed else None
            for shape, needed in zip(ctx.shapes, needs_frozen, strict=True)
        )
        return (None, grad_output if needs_input else None, *zeros)


def without_gradient(
    compute: Callable[[], Tensor], passing: Tensor | None, frozen: Iterable[Tensor]
) -> Tensor:
    """Return the result of ``compute()``, whose backward pass gives zeros.

    Args:
        compute: Makes the output; called without recording gradients.
        passing: Tensor that gets the gradient of the output unchanged, or None. It must have the
            shape of the output.
        frozen: Tensors that get zeros as their gradients.

    Returns:
        Tensor: The output, attached to ``passing`` and ``frozen`` in the autograd graph.
    """
    return _WithoutGradient.apply(compute, passing, *frozen)

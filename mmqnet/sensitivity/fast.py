"""The fast estimate: from one gradient, what the loss loses by each quantizer alone.

To second order an error ``e`` of a tensor changes the loss by ``g e + e H e / 2``. Over the samples
of a trained model the gradients ``g`` have the mean 0 nearly, and the Hessian ``H`` is about the
mean of ``g g^T`` (the empirical Fisher information), so the mean of ``(g e)^2 / 2`` estimates the
loss. A forward and a backward pass for a picture give ``g`` at all quantizers of a float model, and
each choice of bits costs an inner product: the number of passes does not grow with the layers.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmqnet.sensitivity.alternatives import Alternatives

Record = Callable[[Tensor, Tensor], None]
Errors = dict[str, dict[int, float]]  # by quantizer and bits


def estimate_errors(
    model: nn.Module, alternatives: Alternatives, loss: Callable[[], Tensor]
) -> Errors:
    """Estimate from one sample what the loss loses by each alternative alone.

    Args:
        model: A converted model whose quantizers pass their inputs, in evaluation mode.
        alternatives: By the names of its quantizers, and by bits.
        loss: Returns the loss of the sample, 0-d.

    Returns:
        dict: ``(g e)^2 / 2``, with the inner product over all calls of the quantizer.

    Raises:
        ValueError: If a loss or a gradient is not finite.
    """
    products: Errors = {name: dict.fromkeys(of, 0.0) for name, of in alternatives.items()}
    with ExitStack() as stack:
        for name, others in alternatives.items():
            record = functools.partial(_add_products, products[name], others)
            stack.enter_context(_probed(model.get_submodule(name), record))
        loss().backward()
    model.zero_grad(set_to_none=True)
    for name, of_bits in products.items():
        if not all(map(math.isfinite, of_bits.values())):
            raise ValueError(
                f'the gradient at `{name}` should be finite, but is not: check the float '
                'checkpoint and the data'
            )
        products[name] = {bits: product**2 / 2 for bits, product in of_bits.items()}
    return products


@torch.no_grad()
def _add_products(
    products: dict[int, float], others: Mapping[int, nn.Module], x: Tensor, gradient: Tensor
) -> None:
    for bits, other in others.items():
        product = float(((other(x) - x) * gradient).sum(dtype=torch.float64))
        products[bits] += product


@contextmanager
def _probed(quantizer: nn.Module, record: Record) -> Iterator[None]:
    """Hand what passes a quantizer, and its gradient, to ``record``, within the block."""
    anchor = torch.zeros((), requires_grad=True)  # the gradient of an image is asked for as well
    handle = quantizer.register_forward_hook(lambda _, __, x: _Probe.apply(x, anchor, record))
    try:
        yield
    finally:
        handle.remove()


class _Probe(torch.autograd.Function):
    """Pass ``x``; its backward pass hands ``x`` and the gradient to ``record``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, record: Record) -> Tensor:
        ctx.save_for_backward(x)
        ctx.record = record
        return x.clone()  # which others may write to

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.record(ctx.saved_tensors[0], gradient)
        return gradient, None, None

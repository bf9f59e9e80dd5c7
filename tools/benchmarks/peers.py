"""The operators that the soft quantizer is measured against."""

from collections.abc import Callable
from importlib import metadata

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
SPAN = 8.0  # the levels cover -4..4
PACKAGES = ('brevitas', 'torchao', 'scikit-learn', 'onnxruntime', 'openvino', 'nncf')


class ReferenceLoop(torch.autograd.Function):
    """The structure of the paper's code: a loop of sigmoids, and again in the backward pass."""

    @staticmethod
    def forward(ctx, x, levels, thresholds, alpha, beta, temperature):  # noqa: D102
        ctx.save_for_backward(x, levels, thresholds, alpha, beta)
        ctx.temperature = temperature
        y = torch.full_like(x, levels[0].item())
        scaled = x * beta
        for gap, threshold in zip(levels.diff(), thresholds, strict=True):
            y += gap * torch.sigmoid(temperature * (scaled - threshold))
        return y * alpha

    @staticmethod
    def backward(ctx, grad):  # noqa: D102
        x, levels, thresholds, alpha, beta = ctx.saved_tensors
        value, slope = torch.full_like(x, levels[0].item()), torch.zeros_like(x)
        scaled = x * beta
        for gap, threshold in zip(levels.diff(), thresholds, strict=True):
            sigmoid = torch.sigmoid(ctx.temperature * (scaled - threshold))
            value += gap * sigmoid
            slope += gap * sigmoid * (1 - sigmoid)
        slope *= grad * alpha * ctx.temperature
        return slope * beta, None, None, (grad * value).sum(), (slope * x).sum(), None


def torch_learned(n: int) -> Function:
    """Return torch's operator, which MQBench and MMRazor use for LSQ."""
    scale, zero_point = torch.tensor([SPAN / n], requires_grad=True), torch.zeros(1)
    low = -((n + 1) // 2)
    return lambda x: torch._fake_quantize_learnable_per_tensor_affine(
        x, scale, zero_point, low, low + n, 1.0
    )


def brevitas(n: int) -> Function:
    """Return Brevitas's quantizer, with a scale that is learned from the start.

    The default ``Int8ActPerTensorFloat`` takes percentiles of its first 300 inputs: slower.
    """
    from brevitas.nn import QuantIdentity
    from brevitas.quant import Int8ActPerTensorFloatMinMaxInit

    return QuantIdentity(
        act_quant=Int8ActPerTensorFloatMinMaxInit,
        bit_width=max(2, n.bit_length()),
        min_val=-SPAN / 2,
        max_val=SPAN / 2,
        return_quant_tensor=False,
    ).train()


def torchao(n: int) -> Function:
    """Return torchao's quantizer of training with ``range_learning``."""
    from torchao.quantization.quant_primitives import _fake_quantize_affine

    low = -((n + 1) // 2)
    scale = torch.tensor([SPAN / n], requires_grad=True)
    zero_point = torch.zeros(1, dtype=torch.int32)
    return lambda x: _fake_quantize_affine(x, x.shape, scale, zero_point, torch.int32, low, low + n)


def installed_peers(n: int) -> tuple[dict[str, Function], dict[str, str]]:
    """Return the peers for n thresholds, and the reasons why others are left out, by name."""
    functions, left_out = {}, {}
    for name, make in (
        ('torch learned', torch_learned),
        ('brevitas', brevitas),
        ('torchao', torchao),
    ):
        try:
            functions[name] = make(n)
        except ImportError as error:
            left_out[name] = str(error)
    return functions, left_out


def versions() -> dict[str, str]:
    """Return the versions of the installed packages of peers."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found

"""Small networks for the tests of int8 graphs: each with what such graphs are difficult about."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import activation_config

from mmqnet.calibration import calibrate
from mmqnet.layers import QuantConv2d, QuantLinear
from mmqnet.quantizers import Quantizer, build_quantizer, quantizers_of


def quantizer(levels: str = 'uint8') -> Quantizer:
    """Return a quantizer of activations, with signed levels for signed values."""
    return build_quantizer(activation_config(levels, thresholds='uniform', signed_levels='auto'))


def conv(
    channels: int, outputs: int, size: int = 3, weights: str = 'pm4', **options: Any
) -> nn.Module:
    """Return a quantized convolution that keeps the size of its input."""
    levels = options.pop('levels', 'uint8')
    inputs = dict(levels=levels, thresholds='uniform', signed_levels='auto')
    return QuantConv2d(
        channels,
        outputs,
        size,
        padding=size // 2,
        weight_quantizer=dict(levels=weights, granularity='channel'),
        input_quantizer=inputs if levels else None,
        **options,
    )


class Net(nn.Module):
    """A network whose outputs are quantized."""

    def __init__(self, outputs: int = 1, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.outputs = nn.ModuleList(quantizer() for _ in range(outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values = self.compute(x)
        return tuple(q(y) for q, y in zip(self.outputs, values, strict=True))

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError


class Pooled(Net):
    """Layers with a normalization and a pool between them."""

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.last(F.max_pool2d(F.relu(self.norm(self.first(x))), 3, 2, 1)),)


class Residual(Net):
    """A block whose sum is read by the next layer, by a second block and as an output."""

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.input_quantizer(F.relu(self.norm(self.first(x))))
        total = F.relu(self.branch_quantizer(self.norm2(self.branch(y))) + y)
        z = self.again(total)
        other = self.identity_quantizer(total) + self.second_quantizer(z)
        return z, F.relu(other), total


class FewBits(Net):
    """Few levels, unsigned and signed, with a ReLU in front of them and without."""

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.fourth(self.third(F.relu(self.second(self.first(x))))),)


class Joined(Net):
    """Concatenation, upsampling and a slice between layers, a value with two quantizers."""

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        small = F.max_pool2d(F.relu(self.first(x)), 2)
        both = torch.cat(
            [F.interpolate(F.relu(self.second(small)), scale_factor=2), self.third(x)], 1
        )
        return self.fourth(both[:, 2:]), F.relu(self.fifth(x))


class Requantized(Net):
    """Quantized outputs that are moved before a layer of few levels reads them."""

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        first = self.first_quantizer(self.first(x))
        small = F.max_pool2d(self.second_quantizer(self.second(first)), 2)
        both = torch.cat([F.interpolate(small, scale_factor=2), first], 1)
        return (self.third(both),)


class Depthwise(Net):
    """An inverted bottleneck with ReLU6, and a linear layer behind the mean."""

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        y = F.relu6(self.norm(self.expand(x)))
        y = self.project(F.relu6(self.depthwise(y)))
        return (self.linear(F.adaptive_avg_pool2d(y, 1).flatten(1)),)


class Mixed(nn.Module):
    """Float layers and functions between quantized layers, and outputs in float."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.third = conv(8, 8), conv(8, 8)
        self.fourth = conv(8, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = F.relu(self.norm(self.first(x)))
        y = F.silu(self.second(y)) + y
        return self.third(y), self.fourth(y)


def linear(inputs: int, outputs: int) -> nn.Module:
    """Return a quantized linear layer."""
    return QuantLinear(
        inputs,
        outputs,
        weight_quantizer=dict(levels='int7'),
        input_quantizer=dict(levels='uint8', thresholds='uniform', signed_levels='auto'),
    )


CASES: dict[str, Callable[[], nn.Module]] = dict(
    pooled=lambda: Pooled(first=conv(8, 8), norm=nn.BatchNorm2d(8), last=conv(8, 6, stride=2)),
    residual=lambda: Residual(
        3,
        first=conv(8, 8),
        norm=nn.BatchNorm2d(8),
        input_quantizer=quantizer(),
        branch=conv(8, 8, bias=False, levels=None),
        norm2=nn.BatchNorm2d(8),
        branch_quantizer=quantizer(),
        again=conv(8, 8),
        identity_quantizer=quantizer(),
        second_quantizer=quantizer(),
    ),
    few_bits=lambda: FewBits(
        first=conv(8, 8, weights='ternary'),
        second=conv(8, 8, 1, levels='uint4', weights='binary'),
        third=conv(8, 8, levels='uint2'),
        fourth=conv(8, 4, levels='uint3', weights='int7'),
    ),
    joined=lambda: Joined(
        2,
        first=conv(8, 8),
        second=conv(8, 8),
        third=conv(8, 4),
        fourth=conv(10, 4),
        fifth=conv(8, 4),
    ),
    requantized=lambda: Requantized(
        first=conv(8, 8),
        first_quantizer=quantizer(),
        second=conv(8, 8),
        second_quantizer=quantizer(),
        third=conv(16, 8, levels='uint4'),
    ),
    depthwise=lambda: Depthwise(
        expand=conv(8, 16, 1),
        norm=nn.BatchNorm2d(16),
        depthwise=conv(16, 16, groups=16),
        project=conv(16, 8, 1),
        linear=linear(8, 5),
    ),
    mixed=Mixed,
)


@torch.no_grad()
def network(name: str) -> tuple[nn.Module, Tensor]:
    """Return a calibrated network, as if trained, and an input for it."""
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        model, x = CASES[name](), torch.randn(1, 8, 16, 16)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 0.7, 0.5)
                nn.init.normal_(module.bias, 0, 0.2)
                nn.init.normal_(module.running_mean, 0, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 2)
        model.eval()
        calibrate(model, [x], model)
        for q in quantizers_of(model).values():  # alpha and beta are learned apart
            q.log_alpha += 0.1 * torch.randn_like(q.log_alpha)
            q.refresh()
    return model.eval(), x

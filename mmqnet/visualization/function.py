"""The function of a quantizer as it is drawn, and figures about it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmqnet.quantizers import num_bits
from mmqnet.visualization.sources import LayerValues

_OUTSIDE = 0.0005  # share of the values that may be outside of the picture, at each side


@dataclass(frozen=True)
class DrawnFunction:
    """A quantization function with one alpha and beta, and the values on its input axis."""

    values: Tensor
    levels: Tensor
    thresholds: Tensor
    alpha: Tensor
    beta: Tensor
    channels: int = 1

    @property
    def scaled(self) -> bool:
        """Whether the input axis is that of beta * x, since channels have scales of their own."""
        return self.channels > 1

    @property
    def edges(self) -> Tensor:
        """Where the steps are, (n,), on the input axis."""
        return self.thresholds / self.beta

    @property
    def heights(self) -> Tensor:
        """What the steps lead to, (n + 1,), on the output axis."""
        return self.alpha * self.levels

    @property
    def limits(self) -> tuple[float, float]:
        """The part of the input axis that is shown: all steps and nearly all values.

        The range of the values is set by a few outliers, which would compress the steps.
        """
        values = self.values.flatten().sort().values
        few = int(_OUTSIDE * len(values))
        ends = torch.stack([values[few], values[-1 - few]])
        low, high = (float(end) for end in torch.cat([ends, self.edges]).aminmax())
        margin = 0.08 * (high - low) or 1.0
        return low - margin, high + margin


@torch.no_grad()
def drawn_function(source: LayerValues) -> DrawnFunction:
    """Return the hard function of a layer; in the scaled domain where channels have scales."""
    staircase = source.quantizer.staircase(source.values)
    levels, thresholds, alpha, beta = (tensor.detach().float().cpu() for tensor in staircase)
    function = DrawnFunction(source.values.cpu(), levels, thresholds, alpha, beta)
    if beta.numel() == 1:
        return replace(function, alpha=alpha.reshape(()), beta=beta.reshape(()))
    one = torch.ones(())
    return replace(
        function, values=beta * function.values, alpha=one, beta=one, channels=beta.numel()
    )


def describe(source: LayerValues) -> str:
    """Return a short description, for example ``'3-bit weights, 7 levels'``."""
    levels = source.quantizer.levels.tolist()
    active = '' if source.quantizer.is_active else ' (switched off: the values stay in float)'
    return f'{num_bits(levels)}-bit {source.kind}s, {len(levels)} levels{active}'


@torch.no_grad()
def relative_error(source: LayerValues) -> float:
    """Return the RMS error of the hard function as a share of the RMS of the values."""
    x = source.values
    error = source.quantizer.staircase(x).quantize(x) - x
    return float(error.norm() / x.norm().clamp_min(1e-30))


def code_shares(source: LayerValues) -> Tensor:
    """Return the share of the values on each level, (n + 1,)."""
    codes = source.quantizer.codes(source.values).flatten().long()
    return codes.bincount(minlength=len(source.quantizer.levels)) / max(1, codes.numel())


def spread(scale: Tensor) -> tuple[float, float, float]:
    """Return the lowest, the middle and the highest of scales of any shape."""
    scale = scale.detach().flatten()
    return float(scale.min()), float(scale.median()), float(scale.max())

"""MMDetection's FPN with quantized operands in its top-down path.

It imports MMDetection, so it is imported where such a neck is found only.
"""

import torch.nn.functional as F
from mmdet.models.necks import FPN
from torch import Tensor, nn

from mmqnet.layers.outputs import first_weight, quantize_output
from mmqnet.layers.owning import add_quantizer
from mmqnet.quantizers import QuantizerConfig


class QuantFPN(FPN):
    """FPN that adds integers: a converted neck has this class.

    Each lateral convolution has an ``output_quantizer``, and a ``sum_quantizer`` if the sum of its
    level is added to the next finer one, and so is an operand itself.
    """

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the pyramid of ``inputs``, (N, C, H, W) each, the finest first."""
        sums = self._sums(inputs[self.start_level :])
        outs = [conv(x) for conv, x in zip(self.fpn_convs, sums, strict=False)]
        if not self.add_extra_convs:
            while len(outs) < self.num_outs:
                outs.append(F.max_pool2d(outs[-1], 1, stride=2))
            return tuple(outs)
        sources = dict(
            on_input=inputs[self.backbone_end_level - 1], on_lateral=sums[-1], on_output=outs[-1]
        )
        x = sources[self.add_extra_convs]
        for conv in self.fpn_convs[len(sums) :]:
            outs.append(conv(x))
            x = F.relu(outs[-1]) if self.relu_before_extra_convs else outs[-1]
        return tuple(outs)

    def _sums(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the sums of the top-down path, the finest first."""
        sums: list[Tensor] = []
        for i, conv in reversed(list(enumerate(self.lateral_convs))):
            lateral = conv(inputs[i])
            if sums:
                size = None if 'scale_factor' in self.upsample_cfg else lateral.shape[2:]
                lateral = lateral + F.interpolate(sums[0], size=size, **self.upsample_cfg)
            sums.insert(0, conv.sum_quantizer(lateral) if conv.sum_quantizer else lateral)
        return sums


def quantize_top_down(neck: nn.Module, quantizer: QuantizerConfig) -> None:
    """Make an FPN a :class:`QuantFPN`, in place."""
    neck.__class__ = QuantFPN
    convs = list(neck.get_submodule('lateral_convs').children())
    for i, conv in enumerate(convs):
        if not hasattr(conv, 'output_quantizer'):
            quantize_output(conv, quantizer)
        is_operand = 0 < i < len(convs) - 1
        add_quantizer(conv, 'sum_quantizer', quantizer if is_operand else None, first_weight(conv))

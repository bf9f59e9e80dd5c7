"""Residual blocks whose input is quantized once, for all that read it.

The block's class stays what it is. Its input passes a quantizer before the block's own ``forward``
(the identity is quantized too, as in the paper's code), outside of activation checkpointing.
"""

from typing import Any

from torch import nn

from mmqnet.quantizers import Quantizer


def residual_block_types() -> tuple[type[nn.Module], ...]:
    """BasicBlock and Bottleneck of whichever of MMDetection and MMPretrain is installed."""
    types: list[type[nn.Module]] = []
    try:
        from mmdet.models.backbones import resnet as detection

        types += [detection.BasicBlock, detection.Bottleneck]
    except ImportError:
        pass
    try:
        from mmpretrain.models.backbones import resnet as classification

        types += [classification.BasicBlock, classification.Bottleneck]
    except ImportError:
        pass
    return tuple(types)


def quantize_block_input(block: nn.Module, quantizer: Quantizer) -> None:
    """Gives a residual block an ``input_quantizer`` through which its input passes."""
    block.add_module('input_quantizer', quantizer)
    block.register_forward_pre_hook(_quantize_first_argument)


def _quantize_first_argument(block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    quantizer = block.get_submodule('input_quantizer')
    return (quantizer(args[0]), *args[1:])

"""Residual blocks whose input is quantized once, for all that read it.

The block's class stays what it is. Its input passes a quantizer before the block's own ``forward``
(the identity is quantized too, as in the paper's code), outside of activation checkpointing.
"""

import functools
import importlib
from typing import Any

from torch import nn

from mmqnet.layers.owning import add_quantizer
from mmqnet.quantizers import Quantizer, QuantizerConfig


@functools.cache
def _known_forwards() -> frozenset[object]:
    """Return forwards of blocks that give their input to conv1, down-sampling and the sum only.

    Of whichever of MMDetection and MMPretrain is installed; ResNeXt, RegNet, HRNet and others
    inherit the first two.
    """
    found = set()
    for package in ('mmdet', 'mmpretrain'):
        for module, *blocks in (
            ('resnet', 'BasicBlock', 'Bottleneck'),
            ('res2net', 'Bottle2neck'),
            ('resnest', 'Bottleneck'),
            ('seresnet', 'SEBottleneck'),
        ):
            try:
                backbone = importlib.import_module(f'{package}.models.backbones.{module}')
            except ImportError:
                continue
            found |= {getattr(backbone, block).forward for block in blocks}
    return frozenset(found)


def reads_its_input_once(block: nn.Module) -> bool:
    """Whether a module is a residual block whose input can be quantized once, for all readers.

    By the function ``forward`` itself: a block with one of its own might read its input in another
    way (TridentNet's takes lists), and one that is entered by another door too, as DetectoRS's by
    ``rfp_forward``, would pass by the quantizer. The layers of such blocks have their own.
    """
    return type(block).forward in _known_forwards() and not hasattr(block, 'rfp_forward')


def quantize_block_input(block: nn.Module, quantizer: Quantizer | QuantizerConfig) -> None:
    """Give a residual block an ``input_quantizer`` through which its input passes.

    Args:
        block: A block with a layer ``conv1``.
        quantizer: The quantizer that layers share, or the config of the block's own.
    """
    add_quantizer(block, 'input_quantizer', quantizer, block.get_parameter('conv1.weight'))
    block.register_forward_pre_hook(_quantize_first_argument)


def _quantize_first_argument(block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (block.input_quantizer(args[0]), *args[1:])  # type: ignore[operator]

"""Residual blocks: their input is quantized once, and the operands of their sum if so asked.

The block's class stays what it is. Its input passes a quantizer before the block's own ``forward``
(the identity is quantized too, as in the paper's code), outside of activation checkpointing. With
``quantize_identity=False`` and no down-sampling the layers have quantizers of their own instead.
"""

import functools
import importlib
from typing import Any, NamedTuple

import torch
from torch import nn

from mmqnet.layers.outputs import OutputQuantization, first_weight
from mmqnet.layers.owning import add_quantizer
from mmqnet.quantizers import Quantizer, QuantizerConfig


class _Kind(NamedTuple):
    """A block that adds what it has computed to its input, or to its ``downsample`` of it.

    Attributes:
        branch: The module whose output is added.
        condition: The attribute that says whether the block adds at all; empty if it always does.
        shares_input: Whether its layers and the sum get one and the same quantized input.
    """

    branch: str
    condition: str = ''
    shares_input: bool = True


# ResNeXt, RegNet, HRNet and others inherit the forwards of ResNet's blocks.
_BLOCKS = {
    'backbones.resnet.BasicBlock': _Kind('norm2'),
    'backbones.resnet.Bottleneck': _Kind('norm3'),
    'backbones.res2net.Bottle2neck': _Kind('norm3'),
    'backbones.resnest.Bottleneck': _Kind('norm3'),
    'backbones.seresnet.SEBottleneck': _Kind('se_layer'),
    'backbones.darknet.ResBlock': _Kind('conv2', shares_input=False),
    'layers.csp_layer.DarknetBottleneck': _Kind('conv2', 'add_identity', False),
    'layers.csp_layer.CSPNeXtBlock': _Kind('conv2', 'add_identity', False),
    'layers.inverted_residual.InvertedResidual': _Kind('linear_conv', 'with_res_shortcut', False),
    'utils.inverted_residual.InvertedResidual': _Kind('linear_conv', 'with_res_shortcut', False),
    'backbones.mobilenet_v2.InvertedResidual': _Kind('conv', 'use_res_connect', False),
}


@functools.cache
def _known_forwards() -> dict[object, _Kind]:
    """Return the forwards of known blocks of whichever of MMDetection and MMPretrain is there."""
    found: dict[object, _Kind] = {}
    for package in ('mmdet', 'mmpretrain'):
        for path, kind in _BLOCKS.items():
            module, name = path.rsplit('.', 1)
            try:
                block = getattr(importlib.import_module(f'{package}.models.{module}'), name)
            except (ImportError, AttributeError):
                continue
            if block.__module__.endswith(module):  # not one that it imports from elsewhere
                found[block.forward] = kind
    return found


def _kind_of(block: nn.Module) -> _Kind | None:
    """Return what is known of a block.

    By the function ``forward`` itself: a block with one of its own might read its input in another
    way (TridentNet's takes lists), and one that is entered by another door too, as DetectoRS's by
    ``rfp_forward``, would pass by the quantizer. The layers of such blocks have their own.
    """
    return None if hasattr(block, 'rfp_forward') else _known_forwards().get(type(block).forward)


def reads_its_input_once(block: nn.Module) -> bool:
    """Whether a module is a residual block whose input can be quantized once, for all readers."""
    kind = _kind_of(block)
    return kind is not None and kind.shares_input


def quantize_block_input(block: nn.Module, quantizer: Quantizer | QuantizerConfig) -> None:
    """Give a residual block an ``input_quantizer`` through which its input passes.

    Args:
        block: A residual block.
        quantizer: The quantizer that layers share, or the config of the block's own.
    """
    add_quantizer(block, 'input_quantizer', quantizer, first_weight(block))
    block.register_forward_pre_hook(_quantize_first_argument)


def summed_outputs(block: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose outputs a residual block adds.

    Returns:
        dict[str, nn.Module]: By the names of their quantizers: ``'branch_quantizer'``, and
        ``'identity_quantizer'`` if the block adds another tensor than its input. Empty if the
        module is no known residual block, or adds nothing.

    Example:
        >>> from mmpretrain.models.backbones.resnet import BasicBlock
        >>> summed_outputs(BasicBlock(8, 8))
        {'branch_quantizer': BatchNorm2d(8, ...)}
    """
    kind = _kind_of(block)
    if kind is None or (kind.condition and not getattr(block, kind.condition)):
        return {}
    plugins = getattr(block, 'after_conv3_plugin_names', None)  # they come behind norm3
    outputs = dict(branch_quantizer=getattr(block, plugins[-1] if plugins else kind.branch))
    downsample = getattr(block, 'downsample', None)
    if downsample is not None:
        outputs['identity_quantizer'] = downsample
    return outputs


def quantize_summed_outputs(block: nn.Module, quantizer: QuantizerConfig) -> None:
    """Give a residual block the quantizers of :func:`summed_outputs`, parts of the block.

    They are not parts of the modules behind which they act: a normalization in evaluation mode
    (``norm_eval``) would keep them from learning.
    """
    for name in summed_outputs(block):
        add_quantizer(block, name, quantizer, first_weight(block))
    _attach(block)
    block.register_forward_pre_hook(_attach)


def _attach(block: nn.Module, *_: Any) -> None:
    """Add the hooks behind the summed modules, where they are not.

    Before each call, since MMEngine's ``sync_bn`` replaces normalizations without their hooks. A
    summed module with an ``output_quantizer`` of its own has that one's hook too, which acts first.
    """
    if torch.compiler.is_compiling():
        return  # a graph has no hooks to add
    for name, module in summed_outputs(block).items():
        quantizer = block.get_submodule(name)
        hooks = [h for h in module._forward_hooks.values() if isinstance(h, OutputQuantization)]
        if not any(hook.quantizer is quantizer for hook in hooks):
            module.register_forward_hook(OutputQuantization(quantizer))


def _quantize_first_argument(block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (block.input_quantizer(args[0]), *args[1:])  # type: ignore[operator]

"""Quantized layers, and the quantized class of each float class."""

from mmcv.cnn.bricks import wrappers
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d
from torch import nn

from mmqnet.layers.attention import (
    QuantAttentionProjection,
    QuantMultiheadAttention,
    can_expose_projections,
    expose_projections,
    unsupported_option,
)
from mmqnet.layers.conv import (
    QuantConv2d,
    QuantConv2dAdaptivePadding,
    QuantConvAWS2d,
    QuantConvTranspose2d,
    QuantConvWS2d,
)
from mmqnet.layers.linear import QuantLinear
from mmqnet.layers.outputs import quantize_output
from mmqnet.layers.owning import add_quantizer, place
from mmqnet.layers.projection import AttentionProjection, weight_parameter, weight_rows
from mmqnet.layers.quantized_layer import QuantizedLayer
from mmqnet.layers.residual import (
    quantize_block_input,
    quantize_summed_outputs,
    reads_its_input_once,
    summed_outputs,
)
from mmqnet.layers.roles import (
    activation_quantizers,
    frozen_parameters,
    parameter_roles,
    weight_quantizers,
)

# By the exact class: a subclass with a forward of its own might never look at what we override.
QUANTIZED_LAYERS: dict[type[nn.Module], type[QuantizedLayer]] = {
    nn.Conv2d: QuantConv2d,
    wrappers.Conv2d: QuantConv2d,
    Conv2dAdaptivePadding: QuantConv2dAdaptivePadding,
    ConvWS2d: QuantConvWS2d,
    ConvAWS2d: QuantConvAWS2d,
    nn.ConvTranspose2d: QuantConvTranspose2d,
    wrappers.ConvTranspose2d: QuantConvTranspose2d,
    nn.Linear: QuantLinear,
    wrappers.Linear: QuantLinear,
    AttentionProjection: QuantAttentionProjection,
}

__all__ = [
    'QUANTIZED_LAYERS',
    'AttentionProjection',
    'QuantAttentionProjection',
    'QuantConv2d',
    'QuantConv2dAdaptivePadding',
    'QuantConvAWS2d',
    'QuantConvTranspose2d',
    'QuantConvWS2d',
    'QuantLinear',
    'QuantMultiheadAttention',
    'QuantizedLayer',
    'activation_quantizers',
    'add_quantizer',
    'can_expose_projections',
    'expose_projections',
    'frozen_parameters',
    'parameter_roles',
    'place',
    'quantize_block_input',
    'quantize_output',
    'quantize_summed_outputs',
    'reads_its_input_once',
    'summed_outputs',
    'unsupported_option',
    'weight_parameter',
    'weight_quantizers',
    'weight_rows',
]

"""Refuses models that would reach for a quantized layer's weights past the layer itself."""

from mmcv.cnn import ConvModule
from torch import nn

from mmqnet.layers import QuantizedLayer


def refuse_bypasses(model: nn.Module) -> None:
    """Check that nothing computes with the float weights of a quantized layer.

    Raises:
        ValueError: If a ConvModule with a quantized convolution has ``efficient_conv_bn_eval``.
    """
    for name, module in model.named_modules():
        if not isinstance(module, ConvModule) or not isinstance(module.conv, QuantizedLayer):
            continue
        # mmcv before 2.0.1 does not have it
        if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:
            raise ValueError(
                f'`{name}` has `efficient_conv_bn_eval=True`, which convolves with float weights '
                'where the normalization is in evaluation mode: leave it out of the config, or '
                f'name {name!r} in `quantization.exclude`'
            )

"""How layers and residual blocks get their quantizers."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmqnet.quantizers import Quantizer, QuantizerConfig, build_quantizer, quantizer_config


def add_quantizer(
    module: nn.Module,
    name: str,
    given: Quantizer | QuantizerConfig | dict[str, Any] | None,
    weight: nn.Parameter,
    channel_shape: Sequence[int] = (),
) -> None:
    """Make a quantizer an attribute of a layer or block.

    A quantizer that is made here, from its config, becomes a part of the module. One that is given
    is a part of the model, whose layers share it: checkpoints, optimizers and averages contain it
    once, and a frozen stage, which sets its parts to evaluation, does not reach it.

    Args:
        module: The layer or block.
        name: ``'weight_quantizer'`` or ``'input_quantizer'``.
        given: A quantizer, the config of one, or None for float.
        weight: Weights of the layer; the quantizer is placed on their device, and frozen if they
            are.
        channel_shape: Shape of its scales if there is one an output channel; default ``()``.

    Raises:
        TypeError: If the config has a value of the wrong type.
        ValueError: If the config is wrong, or asks for a quantizer that layers share.
    """
    if given is None:
        setattr(module, name, None)
        return
    if isinstance(given, Quantizer):
        module.__dict__[name] = given
        return
    role = 'weight' if name == 'weight_quantizer' else 'activation'
    config = quantizer_config(given, role, name)
    if config.is_shared:
        raise ValueError(
            f"`{config.name('granularity')}` should not be 'model' for a single layer: "
            "'mmqnet.QuantizedModel' makes the functions that layers share"
        )
    quantizer = build_quantizer(config, channel_shape if config.granularity == 'channel' else ())
    # a pretrained model may be in evaluation already
    setattr(module, name, place(quantizer, [weight]).train(module.training))


def place(quantizer: Quantizer, weights: Sequence[nn.Parameter]) -> Quantizer:
    """Move a quantizer to the device of the weights, and freeze it if all of them are frozen.

    A backbone freezes its ``frozen_stages`` at construction and at each ``train()``: a parameter
    that turned frozen after DistributedDataParallel has seen it would be waited for in vain.
    """
    learns = any(weight.requires_grad for weight in weights)
    return quantizer.to(weights[0].device).requires_grad_(learns)

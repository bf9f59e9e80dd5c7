"""The modes of a model's quantizers, which a training sets itself."""

from mmengine.logging import print_log
from torch import nn

from mmqnet.layers import activation_quantizers, weight_quantizers
from mmqnet.quantizers import Mode


def set_modes(model: nn.Module, for_weights: Mode, for_activations: Mode) -> None:
    """Set the mode of all quantizers, and log what it changes.

    Args:
        model: A converted model.
        for_weights: Mode of the weights' quantizers.
        for_activations: Mode of the inputs' quantizers.
    """
    for what, quantizers, mode in (
        ('weights', weight_quantizers(model), for_weights),
        ('activations', activation_quantizers(model), for_activations),
    ):
        before = {Mode(int(quantizer.mode)) for quantizer in quantizers.values()} - {mode}
        for quantizer in quantizers.values():
            quantizer.set_mode(mode)
        if before:
            names = ', '.join(sorted(old.name.lower() for old in before))
            print_log(
                f'Mode of the quantizers of {what}: {mode.name.lower()} (was {names})',
                logger='current',
            )

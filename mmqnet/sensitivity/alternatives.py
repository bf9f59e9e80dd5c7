"""Quantizers of other bits for the places of a model's own, fitted to the same samples."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmqnet.models import QuantizationConfig
from mmqnet.quantizers import (
    Quantizer,
    QuantizerConfig,
    Sample,
    build_quantizer,
    merge_override,
    num_bits,
    quantizer_config,
    quantizers_of,
)
from mmqnet.sensitivity.choices import FLOAT_BITS, ROLES, Choice, levels_of_bits
from mmqnet.sensitivity.layers import Layer

Alternatives = dict[str, dict[int, Quantizer]]  # by the quantizer that they replace, and by bits


def fit_alternatives(
    model: nn.Module,
    layers: Sequence[Layer],
    quantization: Mapping[str, Any],
    choices: Sequence[Choice],
    samples: Mapping[str, Sample],
) -> Alternatives:
    """Fit quantizers of all choices for the layers that have a choice.

    Args:
        model: The converted model.
        layers: Its layers.
        quantization: The dict of the config file that it was converted with.
        choices: Choices of bits; 32 has no quantizer.
        samples: What :func:`mmqnet.calibration.collect_samples` gave.

    Returns:
        dict: From the quantizer that is replaced, and from bits, to a quantizer. One that leaves a
        signed input in float (``signed_levels=None``) is left out.
    """
    own = quantizers_of(model)
    fitted: Alternatives = {}
    for role in ROLES:
        bits = sorted({choice.bits(role) for choice in choices} - {FLOAT_BITS})
        for name in dict.fromkeys(layer.quantizer(role) for layer in layers):
            if name:
                others = {b: _alternative(own[name], quantization[role], b) for b in bits}
                for other in others.values():
                    other.initialize(samples[name])
                fitted[name] = {b: other for b, other in others.items() if other.is_active}
    return fitted


def override_of_bits(config: QuantizerConfig, bits: int) -> dict[str, Any] | None:
    """Return what an override says to give a layer other bits than the common ones.

    Args:
        config: The common config.
        bits: 1 to 8, or 32 for float.

    Returns:
        dict or None: None for float; ``{}`` where the common one has these bits.
    """
    if bits == FLOAT_BITS:
        return None
    if bits == num_bits(config.levels):
        return {}
    return dict(levels=levels_of_bits(config, bits))


def check_choices(
    choices: Sequence[Choice], config: QuantizationConfig, quantization: Mapping[str, Any]
) -> None:
    """Check that a config says how to quantize what the choices name.

    Args:
        choices: Choices of bits.
        config: The checked config.
        quantization: The dict of the config file that it was made of.

    Raises:
        ValueError: If it leaves in float what a choice gives bits, shares one function, or its
            method cannot have so many bits.
    """
    for role in ROLES:
        key, common = f'{config.key}.{role}', getattr(config, role)
        bits = {choice.bits(role) for choice in choices} - {FLOAT_BITS}
        if bits and common is None:
            raise ValueError(
                f'`{key}` should be in the config for choices such as '
                f"'{choices[0]}': without it all choices should have {role[0]}{FLOAT_BITS}"
            )
        if bits and common.is_shared:
            raise ValueError(
                f"`{key}.granularity` should be 'layer' or 'channel' for a choice of bits layer "
                "by layer, but got 'model': all layers share one function"
            )
        for choice in choices:
            if choice.bits(role) != FLOAT_BITS:
                try:
                    _config_of_bits(common, quantization[role], choice.bits(role))
                except ValueError as error:
                    raise ValueError(f"the choice '{choice}' is not possible: {error}") from error


def _alternative(own: Quantizer, common: Mapping[str, Any], bits: int) -> Quantizer:
    other = _config_of_bits(own.config, common, bits)
    return build_quantizer(other, own.scale_shape).to(own.levels.device).eval()


def _config_of_bits(own: QuantizerConfig, common: Mapping[str, Any], bits: int) -> QuantizerConfig:
    given = merge_override(common, override_of_bits(own, bits))
    return quantizer_config(given, own.role, own.key or own.role)

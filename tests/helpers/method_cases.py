"""The methods of other papers, as the tests build them."""

from typing import Any

import torch
from torch import Tensor

from mmqnet.quantizers import Quantizer, Sample, build_quantizer, quantizer_config

CHANNELS = 4
WEIGHTS: dict[str, dict[str, Any]] = {
    'LSQ': dict(type='LSQ', levels=list(range(-8, 8))),
    'LSQ, channels': dict(type='LSQ', levels='int4', granularity='channel'),
    'LSQ, binary': dict(type='LSQ', levels='binary'),
    'LSQ, least squares': dict(type='LSQ', levels='ternary', step_init='mse'),
    'LSQ, powers of two': dict(type='LSQ', levels='apot4'),
    'DoReFa': dict(type='DoReFa', levels=[-3, -1, 1, 3]),
    'DoReFa, rescaled': dict(type='DoReFa', levels='ternary', rescale=True),
    'DoReFa, binary': dict(type='DoReFa', levels='binary'),
    'BWN': dict(type='BWN', levels='binary'),
    'BWN, channels': dict(type='BWN', levels='binary', granularity='channel'),
    'TWN': dict(type='TWN', levels='ternary'),
    'TWN, channels': dict(type='TWN', levels='ternary', granularity='channel'),
}
ACTIVATIONS: dict[str, dict[str, Any]] = {
    'LSQ, inputs': dict(type='LSQ', levels='uint4'),
    'LSQ, inputs of 8 bits': dict(type='LSQ', levels='uint8', step_init='mse'),
    'LSQ+': dict(type='LSQPlus', levels='uint4'),
    'PACT': dict(type='PACT', levels='uint2'),
    'PACT, largest value': dict(type='PACT', levels='uapot4', clip_init='max', signed_levels=None),
    'DoReFa, inputs': dict(type='DoReFa', levels='uint2'),
}
CASES = WEIGHTS | ACTIVATIONS


def build(case: str, **changes: Any) -> Quantizer:
    """Build the quantizer of a case, of weights (4, ...) or of an input."""
    settings = CASES[case] | changes
    role = 'weight' if case in WEIGHTS else 'activation'
    channels = settings.get('granularity') == 'channel'
    config = quantizer_config(settings, role, f'quantization.{role}')
    return build_quantizer(config, (CHANNELS, 1) if channels else ())


def fitted(case: str, x: Tensor, **changes: Any) -> Quantizer:
    """Build the quantizer of a case and fit it to ``x`` (4, N)."""
    quantizer = build(case, **changes)
    fit(quantizer, x)
    return quantizer


def fit(quantizer: Quantizer, x: Tensor) -> None:
    """Fit a quantizer to ``x`` (4, N)."""
    values = x.detach().float()
    rows = values if quantizer.scale_shape else values.reshape(1, -1)
    signed = quantizer.config.is_of_weights or bool((rows < 0).any())
    quantizer.initialize(Sample(rows, rows.abs().amax(1), signed))


def values_of(case: str, count: int = 60) -> Tensor:
    """Return random values (4, count) for a case: not negative for an input, but for LSQ+."""
    x = torch.randn(CHANNELS, count)
    return x if case in WEIGHTS or case == 'LSQ+' else x.relu()

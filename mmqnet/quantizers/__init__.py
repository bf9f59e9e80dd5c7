"""Level sets and quantizers: the quantization function with its learned state."""

from mmqnet.quantizers.checkpoints import SHARED, check_sharing
from mmqnet.quantizers.config import (
    ActivationQuantizerConfig,
    QuantizerConfig,
    WeightQuantizerConfig,
    check_keys,
)
from mmqnet.quantizers.level_sets import num_bits, resolve_levels, signed_counterpart
from mmqnet.quantizers.quantizer import Mode, Quantizer, quantizers_of, soft_evaluation

__all__ = [
    'SHARED',
    'ActivationQuantizerConfig',
    'Mode',
    'Quantizer',
    'QuantizerConfig',
    'WeightQuantizerConfig',
    'check_keys',
    'check_sharing',
    'num_bits',
    'quantizers_of',
    'resolve_levels',
    'signed_counterpart',
    'soft_evaluation',
]

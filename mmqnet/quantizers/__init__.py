"""Level sets, the contract of quantizers, and the methods behind it."""

from mmqnet.quantizers.base import (
    HasTemperature,
    Mode,
    Quantizer,
    quantizers_of,
    soft_evaluation,
)
from mmqnet.quantizers.build import build_quantizer, merge_override, quantizer_config
from mmqnet.quantizers.bwn import BWN
from mmqnet.quantizers.config import DEFAULT_TYPE, QuantizerConfig
from mmqnet.quantizers.dorefa import DoReFa
from mmqnet.quantizers.level_sets import num_bits, resolve_levels, signed_counterpart
from mmqnet.quantizers.lsq import LSQ
from mmqnet.quantizers.lsq_plus import LSQPlus
from mmqnet.quantizers.pact import PACT
from mmqnet.quantizers.quantization_network import (
    QuantizationNetwork,
    QuantizationNetworkConfig,
)
from mmqnet.quantizers.sample import Sample
from mmqnet.quantizers.staircase import IntegerForm, Staircase
from mmqnet.quantizers.twn import TWN

__all__ = [
    'BWN',
    'DEFAULT_TYPE',
    'LSQ',
    'PACT',
    'TWN',
    'DoReFa',
    'HasTemperature',
    'IntegerForm',
    'LSQPlus',
    'Mode',
    'QuantizationNetwork',
    'QuantizationNetworkConfig',
    'Quantizer',
    'QuantizerConfig',
    'Sample',
    'Staircase',
    'build_quantizer',
    'merge_override',
    'num_bits',
    'quantizer_config',
    'quantizers_of',
    'resolve_levels',
    'signed_counterpart',
    'soft_evaluation',
]

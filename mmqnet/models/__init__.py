"""Building, converting and reporting on quantized models."""

from mmqnet.models.alexnet import AlexNetBN
from mmqnet.models.checkpoint_checks import (
    check_end,
    check_state,
    is_complete,
    read_checkpoint,
    warn_of_differences,
)
from mmqnet.models.convert import convert
from mmqnet.models.loading import build_model, check_calibrated, load_weights
from mmqnet.models.packed_weights import (
    ENTRY,
    check_file,
    expand_layer,
    packed_entry,
    unpack,
)
from mmqnet.models.quantization_config import QuantizationConfig
from mmqnet.models.quantized_model import QuantizedModel, check_model_keys
from mmqnet.models.report import LayerReport, QuantizationReport, SumReport
from mmqnet.models.staircase_distance import staircase_distance

__all__ = [
    'ENTRY',
    'AlexNetBN',
    'LayerReport',
    'QuantizationConfig',
    'QuantizationReport',
    'QuantizedModel',
    'SumReport',
    'build_model',
    'check_calibrated',
    'check_end',
    'check_file',
    'check_model_keys',
    'check_state',
    'convert',
    'expand_layer',
    'is_complete',
    'load_weights',
    'packed_entry',
    'read_checkpoint',
    'staircase_distance',
    'unpack',
    'warn_of_differences',
]

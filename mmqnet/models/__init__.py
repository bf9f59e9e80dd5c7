"""Building, converting and reporting on quantized models."""

from mmqnet.models.alexnet import AlexNetBN
from mmqnet.models.checkpoint_checks import check_state, read_checkpoint, warn_of_differences
from mmqnet.models.convert import convert
from mmqnet.models.loading import build_model, check_calibrated, is_complete, load_weights
from mmqnet.models.quantization_config import QuantizationConfig
from mmqnet.models.quantized_model import QuantizedModel
from mmqnet.models.report import LayerReport, QuantizationReport, SumReport

__all__ = [
    'AlexNetBN',
    'LayerReport',
    'QuantizationConfig',
    'QuantizationReport',
    'QuantizedModel',
    'SumReport',
    'build_model',
    'check_calibrated',
    'check_state',
    'convert',
    'is_complete',
    'load_weights',
    'read_checkpoint',
    'warn_of_differences',
]

"""ONNX files that ONNX Runtime and OpenVINO execute in integers."""

from mmqnet.export.packages import require

require('onnx', 'onnxscript', 'onnx_ir')

from mmqnet.export.onnx.export import export_onnx
from mmqnet.export.onnx.integer_layers import LayerPrecision, count_integer_layers
from mmqnet.export.onnx.report import ExportedLayer, ExportReport

__all__ = [
    'ExportReport',
    'ExportedLayer',
    'LayerPrecision',
    'count_integer_layers',
    'export_onnx',
]

"""ONNX files that ONNX Runtime and OpenVINO execute in integers."""

from mmqnet.export.packages import require

require('onnx', 'onnxscript', 'onnx_ir')  # before the modules below import them

from mmqnet.export.onnx.export import export_onnx  # noqa: E402
from mmqnet.export.onnx.integer_layers import LayerPrecision, count_integer_layers  # noqa: E402
from mmqnet.export.onnx.report import ExportedLayer, ExportReport  # noqa: E402

__all__ = [
    'ExportReport',
    'ExportedLayer',
    'LayerPrecision',
    'count_integer_layers',
    'export_onnx',
]

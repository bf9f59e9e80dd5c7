"""ONNX files that ONNX Runtime and OpenVINO execute in integers."""

from mmqnet.export.packages import require

require('onnx', 'onnxscript', 'onnx_ir')

from mmqnet.export.onnx.export import export_onnx
from mmqnet.export.onnx.report import ExportedLayer, ExportReport

__all__ = ['ExportReport', 'ExportedLayer', 'export_onnx']

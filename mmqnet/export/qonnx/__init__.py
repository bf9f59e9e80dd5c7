"""QONNX: the integer form of a network, for FINN and whatever else reads it."""

from mmqnet.export.packages import require

require('onnx', 'onnxscript', 'onnx_ir', 'qonnx', extra='qonnx')

from mmqnet.export.qonnx.export import QonnxReport, write_qonnx  # noqa: E402 -- after the check
from mmqnet.export.qonnx.layers import QonnxLayer  # noqa: E402

__all__ = ['QonnxLayer', 'QonnxReport', 'write_qonnx']

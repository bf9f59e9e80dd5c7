"""Networks as graphs of torch with int8 quantize and dequantize nodes, which converters read."""

from mmqnet.export.qdq.network import QdqLayer, QdqNetwork, quantized_network
from mmqnet.export.qdq.report import QdqReport

__all__ = ['QdqLayer', 'QdqNetwork', 'QdqReport', 'quantized_network']

"""Quantization Networks (Yang et al., CVPR 2019): a staircase learned as a sum of sigmoids."""

from mmqnet.quantizers.quantization_network.config import QuantizationNetworkConfig
from mmqnet.quantizers.quantization_network.quantizer import QuantizationNetwork

__all__ = ['QuantizationNetwork', 'QuantizationNetworkConfig']

"""Detectors as modules from pixels to boxes, which torch.onnx exports."""

from mmqnet.export.detection.build import export_module

__all__ = ['export_module']

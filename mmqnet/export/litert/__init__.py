"""LiteRT (formerly TensorFlow Lite): files for phones and other small devices."""

from mmqnet.export.litert.interpreter import LiteRTProgram, read_metadata
from mmqnet.export.litert.target import LiteRT

__all__ = ['LiteRT', 'LiteRTProgram', 'read_metadata']

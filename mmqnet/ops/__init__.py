# Copyright (c) mmqnet developers. All rights reserved.
"""Tensors in, tensors out: quantization functions and gradients, 1-D k-means, packed codes.

Depends on torch, and on Triton where there is one.
"""

from . import kernel as _kernel  # noqa: F401  loads the compiled kernel
from .kmeans import kmeans_1d
from .packing import pack_codes, unpack_codes
from .quantize import hard_codes, hard_quantize, soft_quantize
from .straight_through import straight_through_backward

__all__ = [
    'hard_codes',
    'hard_quantize',
    'kmeans_1d',
    'pack_codes',
    'soft_quantize',
    'straight_through_backward',
    'unpack_codes',
]

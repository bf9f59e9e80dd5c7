# Copyright (c) mmqnet developers. All rights reserved.
"""Tensors in, tensors out: the quantization function, 1-D k-means, packed codes.

Depends on torch, and on Triton where there is one.
"""

from . import kernel as _kernel  # noqa: F401  loads the compiled kernel
from .kmeans import kmeans_1d
from .packing import pack_codes, unpack_codes
from .quantize import hard_codes, hard_quantize, soft_quantize

__all__ = [
    'hard_codes',
    'hard_quantize',
    'kmeans_1d',
    'pack_codes',
    'soft_quantize',
    'unpack_codes',
]

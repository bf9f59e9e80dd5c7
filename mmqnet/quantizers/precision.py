"""Half-precision tensors in quantizers."""

import torch
from torch import Tensor


def single_precision(x: Tensor) -> Tensor:
    """Return half-precision ``x`` as float32, in which statistics are taken; else ``x``."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

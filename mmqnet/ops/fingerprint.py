# Copyright (c) mmqnet developers. All rights reserved.
"""A hash of tensors that tells whether they have changed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import kernel


def fingerprint(tensors: Sequence[Tensor]) -> Tensor | None:
    """Hashes all values of some tensors, in one reading of their memory.

    Any change of one value gives another number; several changes give the same one with a
    probability of 2**-64.

    Args:
        tensors: At least one, of any shapes and dtypes.

    Returns:
        Tensor or None: int64, 0-d, of their values, shapes and dtypes. None for tensors outside of
        the CPU, and without the compiled kernel.
    """
    if kernel.kernel_unavailable() is not None or any(
        tensor.device.type != 'cpu' for tensor in tensors
    ):
        return None
    return torch.ops.mmqnet.fingerprint(list(tensors))

"""The bias of layers: what is the same in all graphs, of numpy's arrays and of torch's."""

from typing import TypeVar

import numpy as np
from torch import Tensor

LARGEST_BIAS = 2**30  # of int32, with room for the sum
LOST_BIAS = 2**20  # of a channel without weights

Array = TypeVar('Array', np.ndarray, Tensor)


def normalized(
    bias: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
) -> tuple[Array, Array]:
    """Return what a batch normalization makes of a layer: factors of its sums, and its new bias.

    Args:
        bias: (1,) or (O,), as the other arrays, all of them in float64.
        gamma: Weights of the normalization.
        beta: Its bias.
        mean: Its running mean.
        variance: Its running variance.
        epsilon: What is added to that.

    Example:
        >>> normalized(*(np.array([x]) for x in (5.0, 3.0, 1.0, 2.0, 3.0)), epsilon=1.0)
        (array([1.5]), array([5.5]))
    """
    factors = gamma / (variance + epsilon) ** 0.5
    return factors, beta + (bias - mean) * factors

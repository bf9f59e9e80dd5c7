"""What a quantizer is fitted to."""

from typing import NamedTuple

from torch import Tensor


class Sample(NamedTuple):
    """Values of a weight or of an input, in rows: all values of a row share one scale.

    Attributes:
        values: (C, N), float32; C is the number of the quantizer's scales. All weights, or a random
            sample of the inputs.
        max_abs: (C,), the largest absolute values, also of inputs that are not in the sample.
        signed: Whether negative values were seen; weights always count as signed.
    """

    values: Tensor
    max_abs: Tensor
    signed: bool

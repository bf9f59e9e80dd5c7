"""Budgets: what the bits of a model's quantized layers may cost together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmqnet.checks import check_choice, check_number
from mmqnet.sensitivity.choices import Choice
from mmqnet.sensitivity.layers import Layer


class _Kind(NamedTuple):
    unit: str
    cost: Callable[[Layer, Choice], float]  # of a layer, in plain numbers
    scale: Callable[[Sequence[Layer]], float]  # how many of them the unit is


_KINDS = dict(
    bits=_Kind(
        'bits of a weight on average',
        lambda layer, choice: layer.num_weights * choice.weight_bits,
        lambda layers: sum(layer.num_weights for layer in layers),
    ),
    kib=_Kind(
        'KiB of weights',
        lambda layer, choice: layer.num_weights * choice.weight_bits,
        lambda layers: 8 * 1024,
    ),
    gbops=_Kind(
        'GBOPs',
        lambda layer, choice: layer.num_products * choice.weight_bits * choice.activation_bits,
        lambda layers: 1e9,
    ),
)


@dataclass(frozen=True)
class Budget:
    """The most that the quantized layers of a model may cost together.

    Attributes:
        kind: ``'bits'`` (of a weight, on average), ``'kib'`` (of all weights) or ``'gbops'``
            (multiplications for one picture, each counted as the product of the bits of its two
            factors, in units of 1e9).
        most: How much.

    Raises:
        TypeError: If ``most`` is no number.
        ValueError: If ``kind`` is unknown, or ``most`` not positive.
    """

    kind: str
    most: float

    def __post_init__(self) -> None:
        check_choice(self.kind, tuple(_KINDS), 'Budget.kind')
        check_number(self.most, f'Budget.{self.kind}')

    @property
    def unit(self) -> str:
        """What it counts, in words."""
        return _KINDS[self.kind].unit

    def costs(self, pairs: Sequence[tuple[Layer, Choice]]) -> np.ndarray:
        """Return what layers cost with their choices, each in plain numbers: see :meth:`scale`."""
        cost = _KINDS[self.kind].cost
        return np.array([cost(layer, choice) for layer, choice in pairs], dtype=float)

    def scale(self, layers: Sequence[Layer]) -> float:
        """Return how many plain numbers the unit is, for a model of these quantized layers."""
        return _KINDS[self.kind].scale(layers)

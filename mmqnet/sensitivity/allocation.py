"""The allocation of bits that loses least within budgets, by integer linear programming.

Each layer takes one of its choices, so that the sum of the errors is the least of all that keep the
budgets: a multiple-choice knapsack problem. Layers that read one quantized input, as those at the
entrance of a residual block, take choices that agree on its bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from mmqnet.sensitivity.budget import Budget
from mmqnet.sensitivity.choices import ROLES, Choice
from mmqnet.sensitivity.layers import Layer
from mmqnet.sensitivity.record import Sensitivities

Allocation = dict[str, Choice]  # by layer
_ONE = 1e6  # the size of numbers for the solver, whose tolerances are 1e-6


@dataclass(frozen=True)
class _Option:
    """A choice of a layer and what it loses; an input counts for the first layer that reads it."""

    layer: Layer
    choice: Choice
    error: float


class Allocator:
    """Find the best allocations of bits from measured errors.

    Args:
        record: What has been measured.

    Raises:
        ValueError: If it is not complete, or no choice fits a layer.
    """

    def __init__(self, record: Sensitivities) -> None:
        if not record.is_complete:
            raise ValueError(
                'the measurement is not complete: the same command of tools/sensitivity.py goes on'
            )
        self._layers = record.layers
        self._choices = record.choices
        self._first_readers: dict[str, str] = {}
        for layer in record.layers:
            self._first_readers.setdefault(layer.input_quantizer, layer.name)
        self._options = [o for layer in record.layers for o in self._options_of(layer, record)]
        self._structure = self._constraints()

    def allocate(self, budgets: Sequence[Budget]) -> Allocation:
        """Return the allocation of the least error that keeps all budgets.

        Raises:
            ValueError: If they cannot be met; the message says the least and the most that can.
        """
        found = self._solve([option.error for option in self._options], budgets)
        return self._refuse(budgets) if found is None else found

    def error(self, allocation: Allocation) -> float:
        """Return the sum of the errors of an allocation."""
        return sum(o.error for o in self._options if allocation[o.layer.name] == o.choice)

    def cost(self, allocation: Allocation, budget: Budget) -> float:
        """Return what an allocation costs, in the unit of a budget."""
        costs = budget.costs([(layer, allocation[layer.name]) for layer in self._layers])
        return float(costs.sum() / budget.scale(self._layers))

    def uniform(self) -> dict[Choice, Allocation]:
        """Return the allocations that give all layers one choice, where it fits all."""
        fitting = {(option.layer.name, option.choice) for option in self._options}
        found = {}
        for choice in self._choices:
            allocation = {layer.name: layer.with_own_bits(choice) for layer in self._layers}
            if fitting >= set(allocation.items()):
                found[choice] = allocation
        return found

    def limits(self, budget: Budget, kept: Sequence[Budget] = ()) -> tuple[float, float]:
        """Return the least and the most that allocations cost, in the unit of a budget.

        Args:
            budget: Its kind counts, not how much it is.
            kept: Budgets that the allocations keep. Default none.

        Raises:
            ValueError: If these cannot be met.
        """
        costs = self._costs(budget)
        ends = [self._solve(sign * costs, kept) for sign in (1, -1)]
        if None in ends:
            self._refuse(kept)
        least, most = (self.cost(end, budget) for end in ends if end is not None)
        return least, most

    def frontier(self, budgets: Sequence[Budget], points: int = 20) -> list[tuple[float, float]]:
        """Return costs and errors of the best allocations over the range of the first budget.

        Args:
            budgets: The first one is varied, the others are kept.
            points: How many allocations at most. Default 20.
        """
        first, *others = budgets
        errors = [option.error for option in self._options]
        found = set()
        for most in np.geomspace(*self.limits(first), points):
            allocation = self._solve(errors, [Budget(first.kind, float(most)), *others])
            if allocation is not None:
                found.add((self.cost(allocation, first), self.error(allocation)))
        return sorted(found)

    def _options_of(self, layer: Layer, record: Sensitivities) -> list[_Option]:
        roles = ROLES if self._reads_first(layer) else ('weight',)
        return [
            _Option(layer, c, sum(record.error(layer, role, c.bits(role)) or 0.0 for role in roles))
            for c in record.choices_of(layer)
        ]

    def _reads_first(self, layer: Layer) -> bool:
        return self._first_readers[layer.input_quantizer] == layer.name

    def _constraints(self) -> list[LinearConstraint]:
        """One choice for each layer, and agreement of the layers that read one input."""
        rows: dict[tuple[str, int], dict[int, float]] = {}
        for number, option in enumerate(self._options):
            rows.setdefault((option.layer.name, 0), {})[number] = 1.0
        once = len(rows)
        for layer in self._layers:
            if layer.input_quantizer and not self._reads_first(layer):
                first = self._first_readers[layer.input_quantizer]
                for number, option in enumerate(self._options):
                    sign = {layer.name: 1.0, first: -1.0}.get(option.layer.name)
                    if sign:
                        bits = option.choice.activation_bits
                        rows.setdefault((layer.name, bits), {})[number] = sign
        sides = np.array([1.0] * once + [0.0] * (len(rows) - once))
        return [LinearConstraint(_matrix(list(rows.values()), len(self._options)), sides, sides)]

    def _costs(self, budget: Budget) -> np.ndarray:
        costs = budget.costs([(option.layer, option.choice) for option in self._options])
        return costs / budget.scale(self._layers)

    def _solve(
        self, objective: Sequence[float] | np.ndarray, budgets: Sequence[Budget]
    ) -> Allocation | None:
        """Return the allocation of the least objective, or None if the budgets cannot be met."""
        weights = np.asarray(objective, dtype=float)
        limits = [
            LinearConstraint(self._costs(budget)[None] * (_ONE / budget.most), ub=_ONE)
            for budget in budgets
        ]
        largest = float(np.abs(weights).max()) or 1.0
        result = milp(
            weights * (_ONE / largest),
            integrality=np.ones(len(weights)),
            bounds=Bounds(0, 1),
            constraints=[*self._structure, *limits],
            options=dict(mip_rel_gap=0.0),
        )
        if result.x is None:
            return None
        chosen = (o for o, share in zip(self._options, result.x, strict=True) if share > 0.5)
        return {option.layer.name: option.choice for option in chosen}

    def _refuse(self, budgets: Sequence[Budget]) -> NoReturn:
        for budget in budgets:
            least, most = self.limits(budget)
            if budget.most < least:
                raise ValueError(
                    f'a budget of {budget.most:g} {budget.unit} cannot be met: the choices allow '
                    f'{least:.4g} to {most:.4g}'
                )
        first, *others = budgets
        least, most = self.limits(first, others)
        kept = ' and '.join(f'{budget.most:g} {budget.unit}' for budget in others)
        raise ValueError(
            f'the budgets of {first.most:g} {first.unit} and {kept} cannot be met together: within '
            f'{kept} the choices allow {least:.4g} to {most:.4g} {first.unit}'
        )


def _matrix(rows: Sequence[dict[int, float]], width: int) -> csr_array:
    values = [value for row in rows for value in row.values()]
    columns = [column for row in rows for column in row]
    starts = np.cumsum([0, *map(len, rows)])
    return csr_array((values, columns, starts), shape=(len(rows), width))

"""What the comparison of methods trains: methods, bits, seeds, rates, and a config for each run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from comparison_configs import (
    config_text,
    float_model,
    paper_temperature,
    quantized_model,
    recipe_digest,
    taught_by,
)

# Weight and activation bits, and epochs from the float checkpoint.
EPOCHS = {
    '4/4': 2,
    '3/8': 2,
    '3/32': 2,
    '2/32': 2,
    '3/3': 4,
    '2/2': 4,
    '1/2': 4,
    '1/32': 4,
}
# Of the first seed, by the epochs: a longer training takes a higher rate. `rates_of` goes beyond.
RATES = {2: (1e-3, 2e-3, 4e-3), 4: (2e-3, 4e-3, 8e-3)}
SPLITS = ('train', 'val', 'test')
FLOAT = 'float'
DISTILLED = 'u distilled'
# From bits to the recipe of each method.
METHODS: Mapping[str, Mapping[str, str]] = {
    'u': {bits: f'w{bits[0]}-a{bits[2:]}u' for bits in EPOCHS},
    'LSQ': {bits: f'lsq_w{bits[0]}-a{bits[2:]}' for bits in EPOCHS},
    'DoReFa + PACT': {
        bits: f'dorefa{"" if bits.endswith("/32") else "-pact"}_w{bits[0]}-a{bits[2:]}'
        for bits in EPOCHS
    },
    'paper': {bits: f'w{bits[0]}-a{bits[2:]}' for bits in EPOCHS},
    'BWN': {'1/32': 'bwn_w1-a32'},
    'TWN': {'2/32': 'twn_w2-a32'},
    # Not a rival of the others, none of which has a teacher.
    DISTILLED: {bits: f'w{bits[0]}-a{bits[2:]}u' for bits in ('2/2', '1/2')},
}


@dataclass(frozen=True)
class Cell:
    """A method at a number of bits; the float rows have ``'2 epochs'`` or ``'4 epochs'`` there."""

    method: str
    bits: str

    @property
    def epochs(self) -> int:
        """Epochs from the float checkpoint."""
        return int(self.bits[0]) if self.method == FLOAT else EPOCHS[self.bits]

    @property
    def recipe(self) -> str | None:
        """Name of the recipe, None for the float model."""
        return None if self.method == FLOAT else METHODS[self.method][self.bits]


def key_of(cell: Cell, seed: int, rate: float, recipe: str) -> str:
    """Return the name of a training in the results, from the digest of its recipe."""
    return f'{cell.method} {cell.bits} seed {seed} rate {rate:g} {recipe}'.rstrip()


@dataclass(frozen=True)
class Run:
    """One training with a recipe as it is today."""

    cell: Cell
    seed: int
    rate: float

    @property
    def key(self) -> str:
        """Name in the results."""
        return key_of(self.cell, self.seed, self.rate, recipe_digest(self.cell.recipe))

    @property
    def fields(self) -> dict[str, Any]:
        """What a row of the results says of it."""
        cell = self.cell
        recipe = recipe_digest(cell.recipe)
        return dict(
            method=cell.method, bits=cell.bits, seed=self.seed, rate=self.rate, recipe=recipe
        )

    @property
    def epochs(self) -> int:
        """Epochs of the training."""
        return self.cell.epochs

    @property
    def splits(self) -> tuple[str, ...]:
        """The rate is chosen on ``'val'``, methods are compared on ``'test'``."""
        return 'val', 'test'

    def config_text(self, checkpoint: Path) -> str:
        """Return a config: the demo's detector with a recipe, at a seed and a rate."""
        recipe = self.cell.recipe
        lines = float_model() if recipe is None else quantized_model(recipe)
        if self.cell.method == 'paper':
            lines.append(f'default_hooks.update(temperature={paper_temperature()})')
        if self.cell.method == DISTILLED:
            lines.append(taught_by(checkpoint))
        return config_text(lines, checkpoint, self.epochs, self.seed, self.rate)

    def measure(self, work_dir: Path) -> dict[str, Any]:
        """Keep nothing of the log."""
        return {}


class MethodsPlan:
    """Which cells are trained at which seeds.

    The first seed is trained at each rate; the other ones at the best of them, as soon as that is
    known. All methods at some bits come before the next bits, so that what is interrupted compares.

    Args:
        cells: What to fill.
        seeds: One or more.
        rates: One or more. Default: None, those of ``rates_of``.
    """

    def __init__(
        self, cells: list[Cell], seeds: list[int], rates: Sequence[float] | None = None
    ) -> None:
        self._cells = cells
        self._seeds = seeds
        self._rates = rates

    def total(self, scores: Mapping[str, float]) -> int:
        """Return how many trainings the whole comparison has, as far as that is known."""
        return sum(self._number(cell, scores) for cell in self._cells)

    def missing(self, scores: Mapping[str, float]) -> list[Run]:
        """Return the trainings to start next, in order."""
        rows: dict[str, list[Cell]] = {}
        for cell in self._cells:
            rows.setdefault(cell.bits, []).append(cell)
        runs = (run for row in rows.values() for run in self._runs_of(row, scores))
        return [run for run in runs if run.key not in scores]

    def left(self, scores: Mapping[str, float]) -> list[int]:
        """Return the epochs of each training that is left, also of those whose rate is unknown."""
        left = []
        for cell in self._cells:
            done = sum(run.key in scores for run in self._runs_of([cell], scores))
            left += [cell.epochs] * (self._number(cell, scores) - done)
        return left

    def _number(self, cell: Cell, scores: Mapping[str, float]) -> int:
        return len(self._rates_of(cell, scores)) + len(self._seeds) - 1

    def _rates_of(self, cell: Cell, scores: Mapping[str, float]) -> list[float]:
        return rates_of(cell, scores, self._seeds[0], self._rates)

    def _runs_of(self, cells: list[Cell], scores: Mapping[str, float]) -> Iterator[Run]:
        first, *others = self._seeds
        tried = {cell: self._rates_of(cell, scores) for cell in cells}
        for rate in dict.fromkeys(chain.from_iterable(tried.values())):
            yield from (Run(cell, first, rate) for cell in cells if rate in tried[cell])
        for seed in others:
            for cell in cells:
                rate = best_rate(cell, scores, first, self._rates)
                if rate is not None:
                    yield Run(cell, seed, rate)


def cells_of(methods: list[str], bits: list[str]) -> list[Cell]:
    """Return the cells to fill, bits by bits, each with the float row of its epochs first."""
    cells: dict[Cell, None] = {}
    for some in bits:
        if FLOAT in methods:
            cells[Cell(FLOAT, f'{EPOCHS[some]} epochs')] = None
        for method in methods:
            if method != FLOAT and some in METHODS[method]:
                cells[Cell(method, some)] = None
    return list(cells)


def rates_of(
    cell: Cell, scores: Mapping[str, float], seed: int, rates: Sequence[float] | None
) -> list[float]:
    """Return the rates of a cell's first seed.

    Those of ``RATES``, and while the best is the lowest or the highest of them, half or twice it.
    Else the limits of the search could decide between methods.

    Args:
        cell: Method and bits.
        scores: mAP of finished trainings.
        seed: The first one.
        rates: Taken as they are. None: the above.
    """
    if rates is not None:
        return list(rates)
    tried = list(RATES[cell.epochs])
    while True:
        found = _found(cell, scores, seed, tried)
        if len(found) < len(tried):
            return tried
        lowest, *inner, highest = (found[rate] for rate in sorted(tried))
        if lowest > max(*inner, highest):
            tried.append(min(tried) / 2)
        elif highest > max(lowest, *inner):
            tried.append(max(tried) * 2)
        else:
            return tried


def best_rate(
    cell: Cell, scores: Mapping[str, float], seed: int, rates: Sequence[float] | None
) -> float | None:
    """Return the rate of the highest mAP at one seed, or None while a rate has none.

    Of several, it is the lowest.

    Args:
        cell: Method and bits.
        scores: mAP of finished trainings.
        seed: The first one.
        rates: Its rates; None: those of ``rates_of``.
    """
    tried = rates_of(cell, scores, seed, rates)
    found = _found(cell, scores, seed, tried)
    if len(found) < len(tried):
        return None
    return max(sorted(found), key=found.__getitem__)


def _found(
    cell: Cell, scores: Mapping[str, float], seed: int, rates: Sequence[float]
) -> dict[float, float]:
    """Return the mAP at each of the rates whose training is finished."""
    keys = {rate: Run(cell, seed, rate).key for rate in rates}
    return {rate: scores[key] for rate, key in keys.items() if key in scores}

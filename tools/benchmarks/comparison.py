"""What the comparison of methods trains: methods, bits, seeds, rates, and a config for each run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / 'configs' / 'demo'
RECIPES = ROOT / 'configs' / '_base_' / 'quantization'
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
RATES = (1e-3, 2e-3, 4e-3)
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
}
FLOAT = 'float'
# The schedule of the paper's recipes is by epochs, of which these trainings have few: T of its
# first ten epochs, spread over the training.
PAPER_TEMPERATURE = dict(
    type='mmqnet.TemperatureHook', by='progress', weight=dict(start=10, end=100)
)


@dataclass(frozen=True)
class Cell:
    """A method at a number of bits; the float rows have ``'2 epochs'`` or ``'4 epochs'`` there."""

    method: str
    bits: str

    @property
    def epochs(self) -> int:
        """Epochs from the float checkpoint."""
        return int(self.bits[0]) if self.method == FLOAT else EPOCHS[self.bits]


@dataclass(frozen=True)
class Run:
    """One training."""

    cell: Cell
    seed: int
    rate: float

    @property
    def key(self) -> str:
        """Name in the results."""
        return f'{self.cell.method} {self.cell.bits} seed {self.seed} rate {self.rate:g}'

    @property
    def folder(self) -> str:
        """Name of the folder, without blanks or slashes."""
        return self.key.replace(' + ', '-').replace('/', '-').replace(' ', '_')


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


def best_rate(cell: Cell, scores: Mapping[str, float], seed: int) -> float | None:
    """Return the rate of the highest mAP at one seed, or None while a rate has none."""
    found = {rate: scores.get(Run(cell, seed, rate).key) for rate in RATES}
    if any(score is None for score in found.values()):
        return None
    return max(RATES, key=lambda rate: found[rate] or 0.0)


def missing_runs(cells: list[Cell], seeds: list[int], scores: Mapping[str, float]) -> list[Run]:
    """Return the trainings to start next, in order.

    The first seed is trained at each rate; the other ones at the best of them, as soon as that is
    known. All methods at some bits come before the next bits, so that what is interrupted compares.
    """
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.bits, []).append(cell)
    runs = (run for row in rows.values() for run in _runs_of(row, seeds, scores))
    return [run for run in runs if run.key not in scores]


def _runs_of(cells: list[Cell], seeds: list[int], scores: Mapping[str, float]) -> Iterator[Run]:
    first, *others = seeds
    for rate in RATES:
        yield from (Run(cell, first, rate) for cell in cells)
    for seed in others:
        for cell in cells:
            rate = best_rate(cell, scores, first)
            if rate is not None:
                yield Run(cell, seed, rate)


def number_of_runs(cells: list[Cell], seeds: list[int]) -> int:
    """Return how many trainings the whole comparison has."""
    return len(cells) * (len(RATES) + len(seeds) - 1)


def config_text(run: Run, checkpoint: Path) -> str:
    """Return a config: the demo's detector with a recipe, at a seed and a rate."""
    epochs = run.cell.epochs
    return '\n'.join(
        [
            *(_float_model() if run.cell.method == FLOAT else _quantized_model(run.cell)),
            "default_hooks.update(checkpoint=dict(type='mmqnet.CheckpointHook', max_keep_ckpts=1))",
            f'train_cfg = dict(max_epochs={epochs}, val_interval={epochs + 1})',
            f'optim_wrapper = dict(optimizer=dict(lr={run.rate}))',
            'param_scheduler = _base_.param_scheduler',
            f'param_scheduler[0].update(eta_max={run.rate}, pct_start=0.1, total_steps={epochs})',
            f'load_from = {str(checkpoint)!r}',
            f'randomness = dict(seed={run.seed})',
            '',
        ]
    )


def _float_model() -> list[str]:
    return [f'_base_ = {str(DEMO / "ssd_r18_digits.py")!r}', 'default_hooks = dict()']


def _quantized_model(cell: Cell) -> list[str]:
    recipe = RECIPES / f'{METHODS[cell.method][cell.bits]}.py'
    bases = [str(DEMO / '_base_' / 'ssd_r18_digits_qat.py'), str(recipe)]
    lines = [
        f'_base_ = {bases}',
        'model = dict(quantization=_base_.quantization)',
        'default_hooks = dict(**_base_.quantization_hooks)',
        'default_hooks.update(_base_.digits_hooks)',
        'default_hooks.update(_base_.batch_norm_hooks)',
        'default_hooks.update(gap=None)',
    ]
    if cell.method == 'paper':
        lines.append(f'default_hooks.update(temperature={PAPER_TEMPERATURE})')
    return lines

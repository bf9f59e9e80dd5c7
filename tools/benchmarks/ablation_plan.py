"""What the ablation trains: the paper's recipe, each time with one thing changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison_configs import (
    config_text,
    float_config,
    paper_temperature,
    quantized_model,
    recipe_digest,
)

from mmqnet.visualization import read_gap

EPOCHS = 2  # from the float checkpoint
GAP_EPOCHS = 8  # a point each in the picture of the gap
METRIC = 'coco/bbox_mAP'
SPLITS = ('train', 'val')


@dataclass(frozen=True)
class Row:
    """One way to train, at all seeds.

    Attributes:
        recipe: The paper's recipe that it takes.
        weight: What differs in ``quantization.weight``.
        scratch: Whether it begins with random weights, and learns at the rate of the float model's
            training.
        longer: Whether it takes the epochs of the demo's float training too.
        gap: First and last T of a training that measures the gap of soft and hard functions.
    """

    recipe: str
    weight: Mapping[str, Any] | None = None
    scratch: bool = False
    longer: bool = False
    gap: tuple[float, float] | None = None

    @property
    def digest(self) -> str:
        """Digest of the recipe."""
        return recipe_digest(self.recipe)

    @property
    def epochs(self) -> int:
        """Epochs of the training."""
        if self.gap:
            return GAP_EPOCHS
        return EPOCHS + (float_config().train_cfg.max_epochs if self.longer else 0)


ROWS = {
    'w2-a32': Row('w2-a32'),
    'w2-a32-uniform': Row('w2-a32', dict(thresholds='uniform')),
    'w3-a32': Row('w3-a32'),
    'w3-a32-uniform': Row('w3-a32', dict(thresholds='uniform')),
    'w2-a32-shared': Row('w2-a32', dict(granularity='model')),
    'w2-a32-scratch': Row('w2-a32', scratch=True),
    'w2-a32-scratch-long': Row('w2-a32', scratch=True, longer=True),
    'gap-growing': Row('w2-a32', gap=(10, 100)),
    'gap-10': Row('w2-a32', gap=(10, 10)),
    'gap-100': Row('w2-a32', gap=(100, 100)),
}


def key_of(name: str, seed: int, recipe: str) -> str:
    """Return the key of a row's training at a seed, with the digest of its recipe."""
    return f'{name} seed {seed} {recipe}'


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: Of the row.
        seed: Of the training.
        rate: The highest learning rate from the float checkpoint.
    """

    name: str
    seed: int
    rate: float

    @property
    def key(self) -> str:
        """Name in the results."""
        return key_of(self.name, self.seed, ROWS[self.name].digest)

    @property
    def fields(self) -> dict[str, Any]:
        """What a row of the results says of it."""
        return dict(row=self.name, seed=self.seed, recipe=ROWS[self.name].digest)

    @property
    def epochs(self) -> int:
        """Epochs of the training."""
        return ROWS[self.name].epochs

    @property
    def splits(self) -> tuple[str, ...]:
        """``'val'`` alone: nothing is chosen on it."""
        return ('val',)

    def config_text(self, checkpoint: Path) -> str:
        """Return a config: the demo's detector with the paper's recipe, and what the row changes.

        Batch statistics are re-estimated with hard functions, but where the gap is measured: there
        the training's own stay, with which the paper evaluates both.
        """
        row = ROWS[self.name]
        lines = quantized_model(row.recipe)
        lines.append(f'default_hooks.update(temperature={paper_temperature(*(row.gap or ()))})')
        if row.weight:
            lines.append(f"model['quantization']['weight'].update({dict(row.weight)})")
        if row.gap:
            gap = dict(type='mmqnet.SoftHardGapHook', num_samples=400)
            lines.append(f'default_hooks.update(batch_norm=None, gap={gap})')
        rate, start = self.rate, checkpoint
        if row.scratch:
            lines.append("default_hooks['calibration'].update(from_scratch=True)")
            rate, start = float_config().optim_wrapper.optimizer.lr, None
        interval = 1 if row.gap else None
        return config_text(lines, start, self.epochs, self.seed, rate, interval)

    def measure(self, work_dir: Path) -> dict[str, Any]:
        """Return soft and hard mAP after each epoch, where the gap is measured."""
        if not ROWS[self.name].gap:
            return {}
        curve = read_gap(work_dir, METRIC)
        return dict(gap=dict(epochs=curve.steps, soft=curve.soft, hard=curve.hard))


class AblationPlan:
    """All rows at all seeds, seed by seed.

    Args:
        names: Of the rows.
        seeds: One or more.
        rate: The highest learning rate from the float checkpoint.
    """

    def __init__(self, names: Iterable[str], seeds: list[int], rate: float) -> None:
        self._runs = [Run(name, seed, rate) for seed in seeds for name in names]

    def total(self, scores: Mapping[str, float]) -> int:
        """Return how many trainings there are, whatever is finished."""
        return len(self._runs)

    def missing(self, scores: Mapping[str, float]) -> list[Run]:
        """Return the trainings that are not finished, in order."""
        return [run for run in self._runs if run.key not in scores]

    def left(self, scores: Mapping[str, float]) -> list[int]:
        """Return the epochs of each training that is left."""
        return [run.epochs for run in self.missing(scores)]

"""Results of the comparison of methods, kept in a json file from run to run."""

import argparse
import hashlib
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comparison import FLOAT, RATES, Cell, Run, best_rate

from mmqnet import atomic
from mmqnet.models import read_checkpoint
from mmqnet.safe_checkpoints import safe_loading


@dataclass(frozen=True)
class Summary:
    """A cell of the table.

    Attributes:
        scores: mAP of each seed, all at one rate.
        rate: The best of the rates.
    """

    scores: tuple[float, ...]
    rate: float

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds; 0 for a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else 0.0


class Results:
    """Finished trainings.

    Args:
        path: The json file.
        conditions: What makes results comparable.

    Raises:
        ValueError: If the file is damaged, or its results came about under other conditions.
    """

    def __init__(self, path: Path, conditions: dict[str, Any]) -> None:
        self._path = path
        self._conditions = conditions
        self._rows: list[dict[str, Any]] = []
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text())
            before, self._rows = content['conditions'], content['runs']
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{str(path)!r} holds no results ({error}): delete it') from error
        for key, value in conditions.items():
            if before.get(key) != value:
                raise ValueError(
                    f'{str(path)!r} was made with {key} = {before.get(key)!r}, not {value!r}: '
                    'name another --out-dir'
                )

    def add(self, run: Run, score: float, minutes: float) -> None:
        """Add a training, and write the file."""
        row = dict(
            method=run.cell.method,
            bits=run.cell.bits,
            seed=run.seed,
            rate=run.rate,
            epochs=run.cell.epochs,
            mAP=score,
            minutes=round(minutes, 1),
        )
        self._rows.append(row)
        content = dict(conditions=self._conditions, runs=self._rows)
        atomic.write_text(self._path, json.dumps(content, indent=1) + '\n')

    def scores(self) -> dict[str, float]:
        """Return the mAP of each finished training, by its key."""
        return {self._run(row).key: row['mAP'] for row in self._rows}

    def summary(self, cell: Cell) -> Summary | None:
        """Return the seeds of a cell at its best rate, or None while a rate is missing."""
        rows = [row for row in self._rows if self._run(row).cell == cell]
        seeds = list(dict.fromkeys(row['seed'] for row in rows))
        rates = (best_rate(cell, self.scores(), seed) for seed in seeds)
        rate = next((rate for rate in rates if rate is not None), None)
        if rate is None:
            return None
        return Summary(tuple(row['mAP'] for row in rows if row['rate'] == rate), rate)

    def float_summary(self, epochs: int) -> Summary | None:
        """Return the float model trained on for as many epochs."""
        return self.summary(Cell(FLOAT, f'{epochs} epochs'))

    def number_in(self, cells: list[Cell], seeds: list[int]) -> int:
        """Return how many trainings of these cells are finished."""
        rows = map(self._run, self._rows)
        return sum(run.cell in cells and run.seed in seeds for run in rows)

    def minutes_per_epoch(self) -> float:
        """Return the mean time of an epoch so far."""
        epochs = sum(row['epochs'] for row in self._rows)
        return sum(row['minutes'] for row in self._rows) / epochs if epochs else 0.0

    def epochs_left(self, cells: list[Cell], seeds: list[int]) -> int:
        """Return the epochs of the trainings that are missing."""
        done = {cell: self.number_in([cell], seeds) for cell in cells}
        each = len(RATES) + len(seeds) - 1
        return sum(cell.epochs * max(0, each - done[cell]) for cell in cells)

    @staticmethod
    def _run(row: dict[str, Any]) -> Run:
        return Run(Cell(row['method'], row['bits']), row['seed'], row['rate'])


def describe(args: argparse.Namespace) -> dict[str, Any]:
    """Return what all trainings share: float weights, settings, versions."""
    with safe_loading():
        state = read_checkpoint(str(args.checkpoint))['state_dict']
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return dict(
        checkpoint=digest.hexdigest()[:16],
        cfg_options=args.cfg_options,
        torch=torch.__version__,
    )

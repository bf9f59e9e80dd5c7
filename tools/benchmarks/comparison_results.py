"""Results of a comparison of trainings, kept in a json file from run to run."""

import argparse
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comparison_configs import annotation_file, detector_digest

from mmqnet import atomic
from mmqnet.models import read_checkpoint
from mmqnet.models.checkpoint_checks import quantizers_in, weights_of
from mmqnet.safe_checkpoints import safe_loading


@dataclass(frozen=True)
class Summary:
    """A cell of the table.

    Attributes:
        scores: mAP of each seed.
    """

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds; 0 for a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else 0.0

    def is_close(self, other: 'Summary') -> bool:
        """Return whether the means differ by one standard deviation at most, the larger of both."""
        return abs(self.mean - other.mean) <= max(self.deviation, other.deviation)

    def __str__(self) -> str:
        if len(self.scores) == 1:
            return f'{self.mean:.3f}'
        return f'{self.mean:.3f} ± {self.deviation:.3f}'


class Results:
    """Finished trainings; a tool derives from it and names a row's key.

    Args:
        path: The json file.
        conditions: What makes results comparable.

    Raises:
        ValueError: If the file is damaged, or its results came about under other conditions.
        OSError: If it cannot be read.
    """

    def __init__(self, path: Path, conditions: dict[str, Any]) -> None:
        self.path = path
        self.conditions = conditions
        self._rows: list[dict[str, Any]] = []
        if not path.exists():
            return
        text = path.read_text()
        try:
            content = json.loads(text)
            before, self._rows = dict(content['conditions']), list(content['runs'])
            self.scores(), self.minutes_per_epoch()  # that each row has what they read
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{str(path)!r} holds no results ({error}): delete it') from error
        for key, value in conditions.items():
            if before.get(key) != value:
                raise ValueError(
                    f'{str(path)!r} was made with {key} = {before.get(key)!r}, not {value!r}: '
                    'name another --out-dir'
                )

    def key_of(self, row: Mapping[str, Any]) -> str:
        """Return the key of the training that a row of the file is about."""
        raise NotImplementedError

    def add(self, run: Any, found: Mapping[str, Any]) -> None:
        """Add a training with its ``'mAP'``, ``'minutes'`` (or None) and the like, and write."""
        self._rows.append(dict(**run.fields, epochs=run.epochs, **found))
        self.write()

    def write(self) -> None:
        """Write the file.

        Raises:
            OSError: If it cannot be written.
        """
        content = dict(conditions=self.conditions, runs=self._rows)
        atomic.write_text(self.path, json.dumps(content, indent=1) + '\n')

    def scores(self) -> dict[str, float]:
        """Return the mAP of each finished training, by its key."""
        return {self.key_of(row): row['mAP'] for row in self._rows}

    def minutes_per_epoch(self) -> float:
        """Return the mean time of an epoch so far, of the trainings without an interruption."""
        timed = [row for row in self._rows if row['minutes'] is not None]
        epochs = sum(row['epochs'] for row in timed)
        return sum(row['minutes'] for row in timed) / epochs if epochs else 0.0


def describe(args: argparse.Namespace, splits: Sequence[str]) -> dict[str, Any]:
    """Return what all trainings share: float weights, data, detector, settings, versions.

    Args:
        args: The parsed arguments.
        splits: Of the data.

    Raises:
        ValueError: If a split is missing, or the checkpoint cannot be read or holds no float model.
    """
    path = str(args.checkpoint)
    with safe_loading():
        state = weights_of(read_checkpoint(path), path)
    if quantizers_in(state):
        raise ValueError(f'--checkpoint should hold a float model, but {path!r} has quantizers')
    weights = hashlib.sha256()
    for name, value in state.items():
        weights.update(name.encode())
        weights.update(value.numpy().tobytes())
    return dict(
        checkpoint=weights.hexdigest()[:16],
        data={split: _data_digest(args.cfg_options, split) for split in splits},
        detector=detector_digest(),
        cfg_options=args.cfg_options,
        torch=torch.__version__,
    )


def _data_digest(cfg_options: Sequence[str], split: str) -> str:
    annotations = annotation_file(cfg_options, split)
    if not annotations.is_file():
        option = ' --num-test 2000' if split == 'test' else ''
        raise ValueError(
            f'{annotations} does not exist: make the data with '
            f'`tools/dataset_converters/digits.py{option}`'
        )
    return hashlib.sha256(annotations.read_bytes()).hexdigest()[:8]

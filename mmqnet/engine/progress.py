"""How far a runner is, in passes over the data and as a share of the training."""

from typing import Any

from mmengine.runner import Runner


def progress_of(runner: Runner) -> float:
    """Share of the training that is done, 0..1; at the last iteration it is just below 1."""
    return runner.iter / max(1, runner.max_iters)


def epochs_of(runner: Runner) -> float:
    """Passes over the data so far; a repeated data set counts as often as it is repeated."""
    repeats = _repeats(runner.train_dataloader.dataset)
    return runner.iter * repeats / len(runner.train_dataloader)


def _repeats(dataset: Any) -> int:
    """How often one pass of the loader goes over the data; `RepeatDataset` may lie inside."""
    inner = getattr(dataset, 'dataset', None)
    if inner is None:
        return 1
    return getattr(dataset, 'times', 1) * _repeats(inner)

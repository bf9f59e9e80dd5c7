"""Samplers of a runner's training data."""

from typing import Any

from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler


def common_seed(runner: Runner) -> int:
    """Return the seed of the run, the same on all processes.

    With ``randomness.diff_rank_seed`` MMEngine adds the rank to each process's own.
    """
    differs = getattr(runner, '_randomness_cfg', {}).get('diff_rank_seed', False)
    return runner.seed - get_rank() if differs else runner.seed


def sampler_of(batch_sampler: Any) -> Any:
    """Return the sampler in a batch sampler, or that itself if it draws the samples."""
    return getattr(batch_sampler, 'sampler', batch_sampler)


def new_batch_sampler(runner: Runner) -> Any:
    """Build the sampler of a runner's training once more, from its config, as it began.

    A sampler without end, such as ``InfiniteSampler``, cannot be set back, and the workers of
    MMEngine's own iterator may be ahead in it. One that the config holds as an object is returned
    as it is.
    """
    loader: Any = runner.train_dataloader
    config = runner.cfg.get('train_dataloader') or {}
    if not isinstance(config, dict) or not isinstance(config.get('sampler'), dict):
        return loader.batch_sampler
    defaults = dict(dataset=loader.dataset, seed=common_seed(runner))
    sampler = DATA_SAMPLERS.build(config['sampler'], default_args=defaults)
    batch_config = config.get('batch_sampler')
    if batch_config is None:
        return BatchSampler(sampler, loader.batch_size, loader.drop_last)
    if not isinstance(batch_config, dict):
        return loader.batch_sampler
    defaults = dict(sampler=sampler, batch_size=config['batch_size'])
    return DATA_SAMPLERS.build(batch_config, default_args=defaults)

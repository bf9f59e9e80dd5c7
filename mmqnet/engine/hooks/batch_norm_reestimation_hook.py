"""Batch statistics that fit the hard functions."""

from bisect import bisect
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmqnet.calibration import learning_batch_norms, reestimate_on_samples
from mmqnet.checks import check_positive_integer, check_seed
from mmqnet.engine.unwrap import unwrap, with_averages
from mmqnet.quantizers import quantizers_of
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class BatchNormReestimationHook(Hook):
    """Recompute the batch statistics with hard functions, see :func:`reestimate_batch_norm`.

    It does so after every epoch, before a checkpoint is saved and the validation begins: both have
    the new statistics. A training that counts iterations does it where a validation follows, and
    after the last one. The weights learn the same with it and without: a training step does not
    read these statistics. They depend on the weights, the samples and the seed only, so a resumed
    training ends with the same bits, and its order of samples and random numbers stay untouched.

    Where an EMAHook averages the weights, the average is what is evaluated and saved: the
    statistics are computed with it.

    Args:
        num_samples (int): Training samples, of all processes together. Default 1000.
        seed (int): Of their choice. Default 0.

    Raises:
        TypeError: If an argument is no integer.
        ValueError: If ``num_samples`` is not positive, or ``seed`` negative.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.BatchNormReestimationHook', num_samples=256))
        >>> BatchNormReestimationHook(num_samples=1.5)
        Traceback (most recent call last):
            ...
        TypeError: `BatchNormReestimationHook.num_samples` should be a positive integer, ...
    """

    # behind EMAHook, before CheckpointHook
    priority = 'LOW'

    def __init__(self, num_samples: int = 1000, seed: int = 0) -> None:
        check_positive_integer(num_samples, 'BatchNormReestimationHook.num_samples')
        check_seed(seed, 'BatchNormReestimationHook.seed')
        self._num_samples = num_samples
        self._seed = seed

    def before_train(self, runner: Runner) -> None:
        """Check that the model has statistics to compute, now rather than after an epoch.

        Raises:
            ValueError: As :func:`learning_batch_norms`.
        """
        learning_batch_norms(unwrap(runner.model))

    def after_train_epoch(self, runner: Runner) -> None:
        """Compute the statistics after an epoch."""
        # a training that counts iterations calls this at its end
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._reestimate(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Compute the statistics in a training that counts iterations."""
        counts_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if not counts_epochs and _is_used(runner):
            self._reestimate(runner)

    def _reestimate(self, runner: Runner) -> None:
        trained, *averages = with_averages(runner)
        evaluated = averages[-1] if averages else trained
        if averages:
            for quantizer in quantizers_of(evaluated).values():
                quantizer.refresh()  # EMAHook writes into its buffers
        names = reestimate_on_samples(
            evaluated, runner.train_dataloader, self._num_samples, self._seed
        )
        if averages:
            # without `update_buffers`, an average is evaluated with the buffers of the model
            _copy_statistics(names, evaluated, trained)


@torch.no_grad()
def _copy_statistics(names: list[str], source: nn.Module, target: nn.Module) -> None:
    for name in names:
        for key in (f'{name}.running_mean', f'{name}.running_var'):
            target.get_buffer(key).copy_(source.get_buffer(key))


def _is_used(runner: Runner) -> bool:
    """Return whether a validation follows this iteration, or the end of the training."""
    loop, done = runner.train_loop, runner.iter + 1
    if done == runner.max_iters:
        return True
    # the loop's own `val_interval` is of the iteration before
    interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, done + 1) - 1]
    return runner.val_loop is not None and done >= loop.val_begin and done % interval == 0

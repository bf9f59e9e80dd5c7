"""Random numbers that a resumed run draws as the uninterrupted one does."""

from functools import partial
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.utils import set_random_seed

from mmqnet.engine.samplers import common_seed, new_batch_sampler, sampler_of
from mmqnet.engine.seeded_batches import SeededBatches
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class RandomnessHook(Hook):
    """Make random numbers a function of the run's seed and of its progress alone.

    A checkpoint of MMEngine holds no states of random generators: a resumed run would draw the
    first epoch's augmentations and dropped units again. So

    - a training by epochs is seeded at each epoch. Workers of the data loader are started anew,
      since nothing else reaches the generators of persistent ones;
    - a training by iterations is seeded at each iteration, and its batches are those of
      :class:`~mmqnet.engine.seeded_batches.SeededBatches`;
    - the order of the samples is that of the run's seed, which a resumed run has from its
      checkpoint. MMEngine builds the sampler before it reads that.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.RandomnessHook'))
        >>> loader = torch.utils.data.DataLoader([0])
        >>> draws = []
        >>> for epoch in (3, 4, 3):
        ...     runner = SimpleNamespace(
        ...         seed=1, epoch=epoch, train_dataloader=loader, train_loop=None)
        ...     hook.before_train_epoch(runner)
        ...     draws.append(torch.rand(1).item())
        >>> draws[0] == draws[2], draws[0] == draws[1]
        (True, False)
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed an epoch, or take over the batches of a training by iterations."""
        loader = runner.train_dataloader
        if self._is_by_iterations(runner):
            self._take_over_batches(runner)
            return
        seed = _seed_all(runner, runner.epoch)
        sampler = sampler_of(loader.batch_sampler)
        if hasattr(sampler, 'seed'):
            sampler.seed = common_seed(runner)
        init = loader.worker_init_fn
        if isinstance(init, partial) and 'seed' in init.keywords:
            loader.worker_init_fn = partial(init, seed=seed)
            loader._iterator = None  # ends persistent workers

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed an iteration: what the model and other hooks draw."""
        if self._is_by_iterations(runner):
            _seed_all(runner, runner.iter)

    def _is_by_iterations(self, runner: Runner) -> bool:
        return isinstance(runner.train_loop, IterBasedTrainLoop)

    def _take_over_batches(self, runner: Runner) -> None:
        loop = runner.train_loop
        skips = hasattr(loop.dataloader_iterator, 'skip_iter')
        # first, since MMEngine up to 0.10.7 has started its workers by now
        loop.dataloader_iterator = None
        loop.dataloader_iterator = SeededBatches(
            runner.train_dataloader,
            new_batch_sampler(runner),
            common_seed(runner),
            start=runner.iter,
            placeholders=0 if skips else runner.iter,
        )


def _seed_all(runner: Runner, step: int) -> int:
    """Seed Python, NumPy and torch, and return the seed."""
    state = np.random.SeedSequence([runner.seed, step]).generate_state(1)
    seed = int(state[0]) // 2  # the ranks and workers add their numbers to it
    set_random_seed(seed)
    return seed

"""Random numbers that a resumed run draws as the uninterrupted one does."""

from functools import partial

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.utils import set_random_seed

from mmqnet.registry import HOOKS


@HOOKS.register_module()
class RandomnessHook(Hook):
    """Seed every epoch with a number that depends on the run's seed and the epoch alone.

    A checkpoint of MMEngine holds no states of random generators: a resumed run would draw the
    first epoch's augmentations and dropped units again. Workers of the data loader are started anew
    for each epoch, since nothing else reaches the generators of persistent ones. So a training by
    epochs ends with the same bits however often it is stopped after an epoch.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.RandomnessHook'))
        >>> loader = torch.utils.data.DataLoader([0])
        >>> draws = []
        >>> for epoch in (3, 4, 3):
        ...     runner = SimpleNamespace(seed=1, epoch=epoch, train_dataloader=loader)
        ...     hook.before_train_epoch(runner)
        ...     draws.append(torch.rand(1).item())
        >>> draws[0] == draws[2], draws[0] == draws[1]
        (True, False)
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed Python, NumPy, torch and the data loader's workers."""
        state = np.random.SeedSequence([runner.seed, runner.epoch]).generate_state(1)
        seed = int(state[0]) // 2  # the ranks and workers add their numbers to it
        set_random_seed(seed)
        loader = runner.train_dataloader
        init = loader.worker_init_fn
        if isinstance(init, partial) and 'seed' in init.keywords:
            loader.worker_init_fn = partial(init, seed=seed)
            loader._iterator = None  # ends persistent workers

"""Hooks that write down what every process of a distributed training holds."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from quick_start import make_quick

from mmqnet.engine.unwrap import unwrap

make_quick()  # this module is imported by a config, in processes of their own


@HOOKS.register_module()
class RankStates(Hook):
    """Save the states before the first iteration and after each, as ``rank_N.pth``."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.states = [self.state(runner)]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.states.append(self.state(runner))

    def after_train(self, runner):
        torch.save(self.states, Path(runner.work_dir, f'rank_{get_rank()}.pth'))

    def state(self, runner):
        return {k: v.clone() for k, v in unwrap(runner.model).state_dict().items()}


@HOOKS.register_module()
class ThenTrain(Hook):
    """Train other configs in the same processes, which saves their start."""

    priority = 'LOWEST'

    def __init__(self, configs):
        self.configs = configs

    def after_run(self, runner):
        for path in self.configs:
            config = Config.fromfile(path)
            config.launcher = 'pytorch'
            error = Path(config.work_dir, f'error_{get_rank()}.txt')
            try:
                Runner.from_cfg(config).train()
            except ValueError as e:
                error.write_text(str(e))

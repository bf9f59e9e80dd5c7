"""Ratios between the learning rates of parameter groups, under OneCycleLR."""

import logging
from typing import Any

from mmengine.logging import print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from mmqnet.engine.optimizers.scale_decay import Schedulers, flat, wrappers_of

# Of an optimizer wrapper: the rate of each group as a multiple of the optimizer's.
RATE_RATIOS = 'mmqnet_rate_ratios'


def keep_rate_ratios(optim_wrapper: Any, param_schedulers: Schedulers) -> None:
    """Let the groups of :class:`QuantOptimWrapperConstructor` keep their ratios under OneCycleLR.

    OneCycleLR sets the rates of all groups to its own ``eta_max``, so those that the config gives
    to quantized weights or scales would have no effect. Here ``eta_max`` is the maximum at the
    optimizer's own rate, and the other groups stay in proportion. An ``eta_max`` that is a list,
    one value a group, is left alone. Called a second time it changes nothing.

    It belongs between building the optimizer and loading its state: into ``before_run``.

    Args:
        optim_wrapper: A runner's; nothing happens while it is a config or None, as in a test.
        param_schedulers: A runner's, built with that wrapper.
    """
    for wrapper in wrappers_of(optim_wrapper):
        ratios = getattr(wrapper, RATE_RATIOS, None)
        if not ratios or set(ratios) == {1.0}:
            continue
        for scheduler in flat(param_schedulers):
            is_own = scheduler.optimizer in (wrapper, wrapper.optimizer)
            if is_own and isinstance(scheduler, OneCycleParamScheduler):
                _scale(scheduler, wrapper.optimizer.param_groups, ratios)


def _scale(scheduler: Any, groups: list[dict[str, Any]], ratios: list[float]) -> None:
    if isinstance(scheduler.eta_max, list | tuple):
        return
    for i, (group, ratio) in enumerate(zip(groups, ratios, strict=False)):
        group['max_lr'] = scheduler.eta_max * ratio
        group['initial_lr'] = group['max_lr'] / scheduler.div_factor
        group['min_lr'] = group['initial_lr'] / scheduler.final_div_factor
        group['lr'] = group['initial_lr']
        scheduler.base_values[i] = scheduler._last_value[i] = group['lr']
    rates = sorted({group['max_lr'] for group in groups[: len(ratios)]})
    print_log(
        f'OneCycleLR keeps the ratios of the rates of `paramwise_cfg`: its maxima are {rates}',
        logger='current',
        level=logging.INFO,
    )

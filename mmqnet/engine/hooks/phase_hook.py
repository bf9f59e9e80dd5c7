"""Weights first, then activations, then both."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmqnet.engine.modes import set_modes
from mmqnet.engine.optimizers import wrappers_of
from mmqnet.engine.progress import progress_of
from mmqnet.engine.schedules import Phase, PhaseSchedule
from mmqnet.engine.unwrap import with_averages
from mmqnet.layers import activation_quantizers, frozen_parameters, weight_quantizers
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class PhaseHook(Hook):
    """Switch the quantizers' modes as the training goes on, the same way when it is resumed.

    Parameters that are frozen in a phase stay in the autograd graph with zero gradients, since
    DistributedDataParallel waits for them, and the optimizer skips them: neither momentum nor
    weight decay moves them.

    Args:
        schedule (list[dict]): Phases in their order, ``dict(begin=share, phase=name)``: ``begin``
            is a share of the training, ``phase`` one of ``'weights'`` (activations in float),
            ``'activations'`` (weights fixed at their levels) and ``'both'``.

    Raises:
        TypeError: If the schedule is no list, or a ``begin`` no number.
        ValueError: If a key or phase is unknown, or the ``begin`` values are out of order.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> schedule = [dict(begin=0, phase='weights'), dict(begin=0.5, phase='both')]
        >>> hook = HOOKS.build(dict(type='mmqnet.PhaseHook', schedule=schedule))
    """

    # before CalibrationHook, which calibrates what begins to quantize
    priority = 'HIGH'

    def __init__(self, schedule: Sequence[Mapping[str, Any]]) -> None:
        self._schedule = PhaseSchedule.from_config(schedule, 'PhaseHook.schedule')
        self._phase: Phase | None = None
        self._frozen: list[torch.nn.Parameter] = []

    def before_train(self, runner: Runner) -> None:
        """Set the phase and make the optimizer skip what is frozen.

        Raises:
            ValueError: If the model has no quantizers that a phase would train.
        """
        self._models = with_averages(runner)
        self._check_phases(self._models[0])
        self._phase = None
        self._update(runner)
        for wrapper in wrappers_of(runner.optim_wrapper):
            wrapper.optimizer.register_step_pre_hook(self._skip_frozen)

    def _check_phases(self, model: torch.nn.Module) -> None:
        weights, activations = weight_quantizers(model), activation_quantizers(model)
        trained = {
            Phase.WEIGHTS: weights,
            Phase.ACTIVATIONS: activations,
            Phase.BOTH: weights | activations,
        }
        for i, phase in enumerate(self._schedule.phases):
            if not trained[phase]:
                raise ValueError(
                    f'`PhaseHook.schedule[{i}].phase` is {phase.name.lower()!r}, but the model has '
                    'no quantizers that it would train: take it out of the schedule'
                )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Enter the phase of this iteration."""
        self._update(runner)

    def _update(self, runner: Runner) -> None:
        phase = self._schedule.value(progress_of(runner))
        if phase is self._phase:
            return
        self._phase = phase
        for_weights, for_activations = phase.value
        for model in self._models:
            set_modes(model, for_weights, for_activations)
        self._frozen = frozen_parameters(self._models[0])
        runner.logger.info(f'Phase {phase.name.lower()!r} from iteration {runner.iter}')

    def _skip_frozen(self, *_: Any) -> None:
        for parameter in self._frozen:
            parameter.grad = None

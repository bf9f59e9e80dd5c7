"""The gap between soft and hard functions (figure 4 of the paper)."""

import math
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from mmqnet.checks import check_positive_integer
from mmqnet.engine.partial_validation import PartialValidation
from mmqnet.engine.unwrap import unwrap
from mmqnet.quantizers import soft_evaluation
from mmqnet.registry import HOOKS

_WIDE = 0.1  # as a share of the metric


@HOOKS.register_module()
class SoftHardGapHook(Hook):
    """Validate with soft and with hard functions on a fixed part of the validation set.

    Logs ``gap/soft/METRIC``, ``gap/hard/METRIC`` and ``gap/METRIC`` (soft minus hard) beside the
    metrics of the validation, so that log files and visualization backends hold the curve. Where an
    EMAHook averages the weights, both are of the average, as the validation is.

    Args:
        interval (int): Do it at every ``interval``-th validation, counted from the beginning of the
            training, also by a resumed run; always where one only validates. Default 1.
        num_samples (int): How many images, the first of the validation set. Default 200.

    Raises:
        TypeError: If an argument is no integer.
        ValueError: If an argument is not positive.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.SoftHardGapHook', interval=2, num_samples=500))
    """

    # before EMAHook takes back the average, which has just been validated and will be used
    priority = 'ABOVE_NORMAL'

    def __init__(self, interval: int = 1, num_samples: int = 200) -> None:
        check_positive_integer(interval, 'SoftHardGapHook.interval')
        check_positive_integer(num_samples, 'SoftHardGapHook.num_samples')
        self._interval = interval
        self._num_samples = num_samples
        self._validation: PartialValidation | None = None
        self._last: dict[str, float] = {}

    def before_train(self, runner: Runner) -> None:
        """Build the data loader and the evaluator, so that errors occur now, not after an epoch.

        Raises:
            ValueError: If the evaluator counts on all images of several data sets.
        """
        if runner.val_loop is not None:
            self._get_validation(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Evaluate with both and log the difference."""
        if _validation(runner) % self._interval:
            return
        model = unwrap(runner.model)
        validate = self._get_validation(runner)
        # evaluators print tables of their own
        about = f'on the first {validate.num_samples} images'
        runner.logger.info(f'Soft/hard gap: the hard functions {about}')
        hard = validate(model)
        runner.logger.info(f'Soft/hard gap: the soft functions {about}')
        with soft_evaluation(model):
            soft = validate(model)
        scalars = {}
        # COCO's metric gives nothing where nothing is detected
        absent = 0.0 if validate.has_coco else math.nan
        for name in _numbers(hard, soft):
            of_hard, of_soft = hard.get(name, absent), soft.get(name, absent)
            scalars[f'gap/hard/{name}'] = of_hard
            scalars[f'gap/soft/{name}'] = of_soft
            scalars[f'gap/{name}'] = of_soft - of_hard
        runner.visualizer.add_scalars(scalars, step=_step(runner))
        runner.logger.info('  '.join(f'{name}: {value:.4f}' for name, value in scalars.items()))
        self._last = scalars

    def after_train(self, runner: Runner) -> None:
        """Say so if the last gap was wide: then the training ends far from the staircase."""
        name = next(iter(self._last), '')  # the first metric: others, as of rare sizes, are noisy
        metric = name.removeprefix('gap/hard/')
        hard, soft = (self._last.get(f'gap/{kind}/{metric}', 0.0) for kind in ('hard', 'soft'))
        if abs(soft - hard) > _WIDE * max(abs(soft), abs(hard)):
            runner.logger.warning(
                f'The training ends far from the staircase: {metric} is {hard:.4g} with hard '
                f'functions, with which the model is used, and {soft:.4g} with soft ones: train '
                'longer, or let the temperature end higher'
            )

    def _get_validation(self, runner: Runner) -> PartialValidation:
        if self._validation is None:
            self._validation = PartialValidation(runner, self._num_samples)
        return self._validation


def _numbers(*metrics: dict[str, Any]) -> list[str]:
    """Return the names of the metrics that are numbers, in order."""
    items = (item for one in metrics for item in one.items())
    return list(dict.fromkeys(name for name, value in items if isinstance(value, int | float)))


def _step(runner: Runner) -> int:
    """Return the epochs or iterations so far, as the training counts; 0 without a training."""
    # not `runner.train_loop` or `runner.iter`, which would build the training
    if not isinstance(runner._train_loop, BaseLoop):
        return 0
    return runner.epoch if isinstance(runner._train_loop, EpochBasedTrainLoop) else runner.iter


def _validation(runner: Runner) -> int:
    """Return the number of this validation, from epochs or iterations; 0 without a training."""
    step = _step(runner)
    return math.ceil(step / runner.train_loop.val_interval) if step else 0

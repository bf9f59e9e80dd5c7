"""Calibrates the quantizers when they begin to quantize."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmqnet.calibration import calibrate_on_samples, pending_quantizers
from mmqnet.checks import check_positive_integer, check_seed
from mmqnet.engine.hooks.phase_hook import PhaseHook
from mmqnet.engine.modes import set_modes
from mmqnet.engine.unwrap import with_averages
from mmqnet.quantizers import Mode, quantizers_of
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class CalibrationHook(Hook):
    """Initialise each quantizer once, from the weights and random training samples.

    Before the first iteration, from the loaded weights; quantizers that a phase of
    :class:`PhaseHook` leaves in float follow when their phase begins, with the weights of that
    moment. A checkpoint carries the result: a resumed run, or one from a quantized checkpoint,
    skips it. The training's own order of samples and random numbers stay untouched.

    Args:
        num_samples (int): Training samples for the activations; default 1000, as in the paper.
        seed (int): Of their choice. Default 0.

    Raises:
        TypeError: If an argument is no integer.
        ValueError: If ``num_samples`` is not positive, or ``seed`` negative.
    """

    # after PhaseHook, which says what quantizes
    priority = 'ABOVE_NORMAL'

    def __init__(self, num_samples: int = 1000, seed: int = 0) -> None:
        check_positive_integer(num_samples, 'CalibrationHook.num_samples')
        check_seed(seed, 'CalibrationHook.seed')
        self._num_samples = num_samples
        self._seed = seed

    def before_train(self, runner: Runner) -> None:
        """Calibrate what has not been calibrated; the weights have been loaded by now."""
        if not any(isinstance(hook, PhaseHook) for hook in runner.hooks):
            # a checkpoint may come from a training that was in a phase
            for model in with_averages(runner):
                set_modes(model, Mode.LEARNED, Mode.LEARNED)
        self._calibrate(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Calibrate what begins to quantize with this iteration."""
        self._calibrate(runner)

    def _calibrate(self, runner: Runner) -> None:
        model, *averages = with_averages(runner)
        if not pending_quantizers(model):
            return
        train = runner.train_dataloader
        done = calibrate_on_samples(model, train, self._num_samples, self._seed)
        for average in averages:
            _copy_quantizers(done, model, average)
        runner.logger.info(f'Calibrated {len(done)} quantizers')


def _copy_quantizers(names: list[str], source: nn.Module, target: nn.Module) -> None:
    """Averages of numbers from before the calibration would mean nothing."""
    calibrated, copies = quantizers_of(source), quantizers_of(target)
    for name in names:
        copies[name].load_state_dict(calibrated[name].state_dict())

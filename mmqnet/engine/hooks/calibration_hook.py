"""Calibrates the quantizers before the first iteration."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmqnet.calibration import calibrate_on_samples
from mmqnet.checks import check_positive_integer, check_seed
from mmqnet.engine.unwrap import unwrap
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class CalibrationHook(Hook):
    """Initialises scales and thresholds once, from the loaded weights and random training samples.

    A checkpoint carries the result: a resumed run, or one from a quantized checkpoint, skips it.
    The training's own order of samples and random numbers stay untouched.

    Args:
        num_samples (int): Training samples for the activations; default 1000, as in the paper.
        seed (int): Of their choice. Default 0.

    Raises:
        TypeError: If an argument is no integer.
        ValueError: If ``num_samples`` is not positive, or ``seed`` negative.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, num_samples: int = 1000, seed: int = 0) -> None:
        check_positive_integer(num_samples, 'CalibrationHook.num_samples')
        check_seed(seed, 'CalibrationHook.seed')
        self._num_samples = num_samples
        self._seed = seed

    def before_train(self, runner: Runner) -> None:
        """Calibrates whatever has not been calibrated; the weights have been loaded by now."""
        model, train = unwrap(runner.model), runner.train_dataloader
        done = calibrate_on_samples(model, train, self._num_samples, self._seed)
        if done:
            runner.logger.info(f'Calibrated {len(done)} quantizers')

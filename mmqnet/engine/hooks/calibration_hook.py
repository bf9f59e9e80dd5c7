"""Prepares a quantized training, and calibrates the quantizers when they begin to quantize."""

from typing import Any

from mmengine.dist import broadcast, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmqnet.calibration import (
    calibrate_on_samples,
    check_same_on_processes,
    match_on_samples,
    matchable_layers,
    pending_quantizers,
)
from mmqnet.checks import check_bool, check_positive_integer, check_seed
from mmqnet.engine.hooks.phase_hook import PhaseHook
from mmqnet.engine.loading import check_checkpoint, check_file, warn_of_random_weights
from mmqnet.engine.modes import set_modes
from mmqnet.engine.optimizers import exempt_scales_from_decay, keep_rate_ratios
from mmqnet.engine.unwrap import unwrap, with_averages
from mmqnet.layers import QuantizedLayer
from mmqnet.quantizers import Mode, Quantizer, quantizers_of
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class CalibrationHook(Hook):
    """Initialise each quantizer once, from the weights and random training samples.

    Before the first iteration, from the loaded weights; quantizers that a phase of
    :class:`PhaseHook` leaves in float follow when their phase begins, with the weights of that
    moment. A checkpoint carries the result: a resumed run, or one from a quantized checkpoint,
    skips it. The training's own order of samples and random numbers stay untouched.

    Before, it refuses checkpoints that do not fit the model, takes the weight decay off the scales
    and sets the modes of all quantizers, whatever the checkpoint says of them.

    Args:
        num_samples (int): Training samples for the activations; default 1000, as in the paper.
        seed (int): Of their choice. Default 0.
        match_outputs (bool): Whether the weights of layers with a bias are scaled, and the bias is
            moved, so that their outputs are as near as possible to those in float, see
            :func:`match_outputs`; for models without batch normalization. Default False.
        from_scratch (bool): Whether the training is meant to start from random weights; otherwise
            it warns of them. Default False.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``num_samples`` is not positive, or ``seed`` negative.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.CalibrationHook', num_samples=64))
    """

    # after PhaseHook, which says what quantizes
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        num_samples: int = 1000,
        seed: int = 0,
        match_outputs: bool = False,
        from_scratch: bool = False,
    ) -> None:
        check_positive_integer(num_samples, 'CalibrationHook.num_samples')
        check_seed(seed, 'CalibrationHook.seed')
        check_bool(match_outputs, 'CalibrationHook.match_outputs')
        check_bool(from_scratch, 'CalibrationHook.from_scratch')
        self._num_samples = num_samples
        self._seed = seed
        self._match_outputs = match_outputs
        self._from_scratch = from_scratch
        self._waiting: list[Quantizer] = []

    def before_run(self, runner: Runner) -> None:
        """Check the checkpoint's file, and complete the settings of the optimizer.

        Scales lose their weight decay, and rates keep their ratios under OneCycleLR.

        Raises:
            ValueError: If the file is no complete checkpoint, or ``efficient_conv_bn_eval`` names a
                module with quantizers, or no layer's outputs can be matched.
        """
        check_file(runner)
        _check_traced(runner)
        if self._match_outputs:
            matchable_layers(unwrap(runner.model))
        keep_rate_ratios(runner.optim_wrapper, runner.param_schedulers)  # before groups are split
        exempt_scales_from_decay(runner.optim_wrapper, runner.param_schedulers, runner.model)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits the model, before it is loaded into it.

        Raises:
            ValueError: If it does not.
        """
        check_checkpoint(runner, checkpoint)

    def before_train(self, runner: Runner) -> None:
        """Calibrate what has not been calibrated; the weights have been loaded by now.

        Raises:
            RuntimeError: If other processes have other quantizers to calibrate, now or later.
        """
        if not any(isinstance(hook, PhaseHook) for hook in runner.hooks):
            # a checkpoint may come from a training that was in a phase
            for model in with_averages(runner):
                set_modes(model, Mode.LEARNED, Mode.LEARNED)
        of_model = quantizers_of(unwrap(runner.model))
        check_same_on_processes(name for name, q in of_model.items() if not q.is_calibrated)
        if pending_quantizers(unwrap(runner.model)) and not self._from_scratch:
            warn_of_random_weights(runner)
        self._calibrate(runner)
        # only these may be calibrated later: the model is not searched at every iteration
        self._waiting = [q for q in of_model.values() if not q.is_calibrated]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Calibrate what begins to quantize with this iteration."""
        if any(quantizer.is_active for quantizer in self._waiting):
            self._calibrate(runner)

    def _calibrate(self, runner: Runner) -> None:
        model, *averages = with_averages(runner)
        if not pending_quantizers(model):
            return
        _share_buffers(model)
        train = runner.train_dataloader
        done = calibrate_on_samples(model, train, self._num_samples, self._seed)
        for average in averages:
            _copy_modules(done, model, average)
        runner.logger.info(f'Calibrated {len(done)} quantizers')
        if self._match_outputs:
            matched = match_on_samples(model, train, done, self._num_samples, self._seed)
            for average in averages:
                _copy_modules(matched, model, average)
        self._waiting = [quantizer for quantizer in self._waiting if not quantizer.is_calibrated]


def _check_traced(runner: Runner) -> None:
    traced = runner.cfg.get('efficient_conv_bn_eval') or []
    for name in [traced] if isinstance(traced, str) else traced:
        module = unwrap(runner.model).get_submodule(name)
        if any(isinstance(layer, QuantizedLayer) for layer in module.modules()):
            raise ValueError(
                f'`efficient_conv_bn_eval` names {name!r}, which has quantizers: it convolves with '
                'float weights, and keeps the temperature that it finds; take it out'
            )


def _share_buffers(model: nn.Module) -> None:
    """Take the batch statistics of the first process, which alone are in a checkpoint.

    Each process updates its own. Activations are observed with them, so that a run which is resumed
    where a phase begins would be calibrated with others.
    """
    if is_distributed():
        for buffer in model.buffers():
            broadcast(buffer)


def _copy_modules(names: list[str], source: nn.Module, target: nn.Module) -> None:
    """Averages of numbers from before the calibration would mean nothing."""
    for name in names:
        target.get_submodule(name).load_state_dict(source.get_submodule(name).state_dict())

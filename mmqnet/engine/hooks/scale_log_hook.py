"""Shows what the quantizers learn."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmqnet.checks import check_positive_integer
from mmqnet.engine.unwrap import unwrap
from mmqnet.quantizers import quantizers_of
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class ScaleLogHook(Hook):
    """Hand the scales of every quantizer to all visualization backends.

    What a quantizer gives as its ``scalars()`` appears as ``SCALAR/NAME``, for example
    ``alpha/backbone.conv1.weight_quantizer``. The temperatures are logged by
    :class:`TemperatureHook`, the gap between soft and hard functions by :class:`SoftHardGapHook`.

    Args:
        interval (int): Iterations from one time to the next, beside the first and the last
            iteration of the training. Default 200.

    Raises:
        TypeError: If ``interval`` is no integer.
        ValueError: If it is not positive.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.ScaleLogHook', interval=50))
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, interval: int = 200) -> None:
        check_positive_integer(interval, 'ScaleLogHook.interval')
        self._interval = interval

    @torch.no_grad()
    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: object = None,
    ) -> None:
        """Log after every ``interval``-th iteration, the first one and the last one."""
        is_end = runner.iter + 1 in (1, runner.max_iters)
        if not is_end and not self.every_n_train_iters(runner, self._interval):
            return
        scalars = {
            f'{key}/{name}': value
            for name, quantizer in quantizers_of(unwrap(runner.model)).items()
            for key, value in quantizer.scalars().items()
        }
        if scalars:
            values = torch.stack(list(scalars.values())).tolist()  # one wait for the device
            runner.visualizer.add_scalars(
                dict(zip(scalars, values, strict=True)), step=runner.iter + 1
            )

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
    """Hands alpha and beta of every quantizer to all visualization backends.

    They appear as ``alpha/NAME`` and ``beta/NAME``; where a quantizer has a scale for each channel,
    as their geometric mean. The temperatures are logged by :class:`TemperatureHook`, the gap
    between soft and hard functions by :class:`SoftHardGapHook`.

    Args:
        interval (int): Iterations from one time to the next. Default 200.

    Raises:
        TypeError: If ``interval`` is no integer.
        ValueError: If it is not positive.
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
        """Logs after every ``interval``-th iteration."""
        if not self.every_n_train_iters(runner, self._interval):
            return
        quantizers = quantizers_of(unwrap(runner.model))
        logs = [log for q in quantizers.values() for log in (q.log_alpha, q.log_beta)]
        if not logs:
            return
        values = torch.stack([log.mean() for log in logs]).exp().tolist()  # one wait for the device
        names = [f'{scale}/{name}' for name in quantizers for scale in ('alpha', 'beta')]
        runner.visualizer.add_scalars(dict(zip(names, values, strict=True)), step=runner.iter + 1)

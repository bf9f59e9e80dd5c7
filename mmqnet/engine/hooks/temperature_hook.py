"""Sets the temperatures of the soft functions as the training goes on."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmqnet.engine.progress import epochs_of, progress_of
from mmqnet.engine.schedules import build_temperature
from mmqnet.engine.unwrap import unwrap, with_averages
from mmqnet.layers import activation_quantizers, weight_quantizers
from mmqnet.models import staircase_distance
from mmqnet.quantizers import HasTemperature, Quantizer, quantizers_of
from mmqnet.registry import HOOKS

_ENOUGH = 100  # from this T on, the gap between soft and hard was below 0.3 points
_FAR = 0.05  # distance of soft weights from hard ones, as a share of their norm


@HOOKS.register_module()
class TemperatureHook(Hook):
    """Set temperatures as a function of the progress, so that a resumed run goes on where it was.

    It serves the quantizers that have a temperature, see :class:`HasTemperature`.

    Args:
        weight (dict): Schedule of the weights' temperature: ``dict(slope=10, cap=100)`` by epoch,
            ``dict(start=1, end=100)`` by progress.
        activation (dict, optional): The same for activations. Default: as ``weight``.
        by (str): ``'epoch'`` (default): ``T = slope * epoch`` in passes over the data, of which
            ``RepeatDataset(times=10)`` makes ten in one epoch of the runner. ``'progress'``:
            linear over the training, at every iteration.

    Raises:
        TypeError: If a value of a schedule is no number.
        ValueError: If a schedule has an unknown or missing key or a value out of range.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.TemperatureHook', weight=dict(slope=10, cap=99)))
    """

    priority = 'NORMAL'

    def __init__(
        self,
        weight: Mapping[str, Any],
        activation: Mapping[str, Any] | None = None,
        by: str = 'epoch',
    ) -> None:
        self._weight = build_temperature(by, weight, 'TemperatureHook.weight')
        self._activation = (
            self._weight
            if activation is None
            else build_temperature(by, activation, 'TemperatureHook.activation')
        )
        self._last: tuple[float, float] | None = None

    def before_train(self, runner: Runner) -> None:
        """Find the quantizers, and set their temperature before anything reads it.

        Raises:
            ValueError: If no quantizer has a temperature, or the last one is too high.
        """
        models = with_averages(runner)
        self._quantizers = (
            [q for m in models for q in _with_temperature(weight_quantizers(m))],
            [q for m in models for q in _with_temperature(activation_quantizers(m))],
        )
        if not any(self._quantizers):
            types = sorted({type(q).__name__ for q in quantizers_of(models[0]).values()})
            raise ValueError(
                f'TemperatureHook has nothing to set: no quantizer ({", ".join(types) or "none"}) '
                'has a temperature; leave the hook out of `default_hooks`'
            )
        last = max(0, runner.max_iters - 1)
        self._set(self._values(epochs_of(runner, last), 1.0))  # if that is refused, then now
        self._last = None
        self._update(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the temperatures of this iteration and logs them."""
        self._update(runner)

    def after_train(self, runner: Runner) -> None:
        """Say so if the training ends far from the staircase, with which the model is used."""
        last = self._values(epochs_of(runner, max(0, runner.max_iters - 1)), 1.0)[0]
        distance = staircase_distance(unwrap(runner.model)) if last < _ENOUGH else 0.0
        if self._quantizers[0] and distance > _FAR:
            runner.logger.warning(
                f'The training ends at T = {last:g}, far from the staircase: soft and hard weights '
                f"differ by {distance:.0%}; take a larger `slope`, or by='progress' with "
                'weight=dict(start=100, end=1000) in `default_hooks.temperature`'
            )

    def _update(self, runner: Runner) -> None:
        current = self._values(epochs_of(runner), progress_of(runner))
        runner.message_hub.update_scalar('train/temperature_weight', current[0])
        runner.message_hub.update_scalar('train/temperature_activation', current[1])
        if current == self._last:
            return
        self._last = current
        self._set(current)

    def _values(self, epochs: float, progress: float) -> tuple[float, float]:
        return self._weight.value(epochs, progress), self._activation.value(epochs, progress)

    def _set(self, temperatures: tuple[float, float]) -> None:
        for quantizers, temperature in zip(self._quantizers, temperatures, strict=True):
            for quantizer in quantizers:
                quantizer.set_temperature(temperature)


def _with_temperature(quantizers: Mapping[str, Quantizer]) -> list[HasTemperature]:
    return [q for q in quantizers.values() if isinstance(q, HasTemperature)]

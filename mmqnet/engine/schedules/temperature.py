"""Temperature schedules: T as a function of the epoch or of the progress."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmqnet.checks import check_choice, check_keys, check_number


@dataclass(frozen=True)
class EpochTemperature:
    """``T = slope * epoch`` with the current pass over the data counted from 1 (the paper's).

    Attributes:
        slope: k in ``T = k * epoch``, positive.
        cap: The largest T; default infinity.
        key: Where the config is, for messages.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If a value is out of range.

    Example:
        >>> schedule = EpochTemperature(slope=10, cap=35)
        >>> [schedule.value(epochs, progress=0) for epochs in (0, 0.9, 1, 7)]
        [10, 10, 20, 35]
    """

    slope: float
    cap: float = math.inf
    key: str = field(default='temperature', repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.slope, f'{self.key}.slope')
        check_number(self.cap, f'{self.key}.cap', infinite=True)

    def value(self, epochs: float, progress: float) -> float:
        """Return T after ``epochs`` passes over the data."""
        return min(self.cap, self.slope * (math.floor(epochs) + 1))


@dataclass(frozen=True)
class ProgressTemperature:
    """T grows linearly from ``start`` to ``end`` over the whole training, at every iteration.

    Attributes:
        start: T at the first iteration, positive.
        end: What T reaches after the last one, not below ``start``.
        key: Where the config is, for messages.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If a value is out of range.

    Example:
        >>> schedule = ProgressTemperature(start=1, end=101)
        >>> schedule.value(epochs=0, progress=0.5)
        51.0
    """

    start: float
    end: float
    key: str = field(default='temperature', repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number(self.start, f'{self.key}.start')
        check_number(self.end, f'{self.key}.end')
        if self.end < self.start:
            raise ValueError(
                f'`{self.key}.end` should not be below `{self.key}.start`, '
                f'but got {self.end} < {self.start}'
            )

    def value(self, epochs: float, progress: float) -> float:
        """Return T at the share ``progress`` (0..1) of the training."""
        return self.start + (self.end - self.start) * progress


TemperatureSchedule = EpochTemperature | ProgressTemperature
_SCHEDULES: dict[str, type[EpochTemperature] | type[ProgressTemperature]] = {
    'epoch': EpochTemperature,
    'progress': ProgressTemperature,
}


def build_temperature(by: str, config: Mapping[str, Any], key: str) -> TemperatureSchedule:
    """Build a schedule from its config.

    Args:
        by: ``'epoch'`` or ``'progress'``.
        config: ``dict(slope=..., cap=...)`` or ``dict(start=..., end=...)``.
        key: Name of the config in messages.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If a key is unknown or missing, or a value out of range.

    Example:
        >>> build_temperature('progress', dict(start=1, end=100), 'TemperatureHook.weight')
        ProgressTemperature(start=1, end=100)
    """
    check_choice(by, list(_SCHEDULES), 'by')
    kind = _SCHEDULES[by]
    fields = [item for item in dataclasses.fields(kind) if item.name != 'key']
    check_keys(config, [item.name for item in fields], key)
    for item in fields:
        if item.name not in config and item.default is dataclasses.MISSING:
            raise ValueError(f'`{key}` should name its {item.name!r}, but got {dict(config)}')
    return kind(**config, key=key)

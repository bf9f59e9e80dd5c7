"""The three phases of a training that quantizes weights and activations."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mmqnet.checks import check_choice, check_keys, check_number
from mmqnet.quantizers import Mode


class Phase(enum.Enum):
    """Modes of the quantizers of weights and of activations in a part of a training."""

    WEIGHTS = (Mode.LEARNED, Mode.FLOAT)
    ACTIVATIONS = (Mode.FIXED, Mode.LEARNED)
    BOTH = (Mode.LEARNED, Mode.LEARNED)


@dataclass(frozen=True)
class PhaseSchedule:
    """Phases and where in the training they begin.

    Attributes:
        begins: Shares of the training, 0 <= share < 1, increasing from 0.
        phases: One phase for each.
        key: Where the config is, for messages.

    Raises:
        ValueError: If the ``begin`` values are out of order.

    Example:
        >>> phases = [dict(begin=0, phase='weights'), dict(begin=0.5, phase='both')]
        >>> schedule = PhaseSchedule.from_config(phases, 'PhaseHook.schedule')
        >>> schedule.value(0.6).name
        'BOTH'
    """

    begins: tuple[float, ...]
    phases: tuple[Phase, ...]
    key: str = field(default='schedule', repr=False, compare=False)

    def __post_init__(self) -> None:
        begins = self.begins
        increasing = all(low < high for low, high in pairwise(begins))
        if begins[0] != 0 or not increasing or begins[-1] >= 1:
            raise ValueError(
                f'the `begin` values of `{self.key}` should increase from 0 and stay below 1 (they '
                f'are shares of the training), but got {list(begins)}'
            )

    @classmethod
    def from_config(cls, config: Sequence[Mapping[str, Any]], key: str) -> 'PhaseSchedule':
        """Build a schedule from ``[dict(begin=0, phase='weights'), ...]``.

        Raises:
            TypeError: If the config is no list, or a ``begin`` no number.
            ValueError: If a key or phase is unknown, or the ``begin`` values are out of order.
        """
        if not isinstance(config, Sequence) or isinstance(config, str) or not config:
            raise TypeError(f'`{key}` should be a list of dicts, but got {config!r}')
        names = {phase.name.lower(): phase for phase in Phase}
        for i, entry in enumerate(config):
            check_keys(entry, ['begin', 'phase'], f'{key}[{i}]')
            check_number(entry.get('begin'), f'{key}[{i}].begin', zero=True)
            check_choice(entry.get('phase'), sorted(names), f'{key}[{i}].phase')
        begins = tuple(float(entry['begin']) for entry in config)
        return cls(begins, tuple(names[entry['phase']] for entry in config), key)

    def value(self, progress: float) -> Phase:
        """Return the phase at the share ``progress`` (0..1) of the training."""
        return [p for b, p in zip(self.begins, self.phases, strict=True) if b <= progress][-1]

"""Config of the method of Quantization Networks."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from mmqnet.checks import check_bool, check_choice, check_number, is_list_of_numbers
from mmqnet.quantizers.config import QuantizerConfig, of_role
from mmqnet.quantizers.level_sets import (
    as_float32,
    signed_counterpart,
    zero_centred_counterpart,
)

PAPER_ZERO_THRESHOLD = 0.05
# T * gap / 4 is the slope of a step, which float32 has to hold, multiplied by gradients.
LARGEST_SLOPE = 1e30


@dataclass(frozen=True)
class QuantizationNetworkConfig(QuantizerConfig):
    """The keys of this method beside those of :class:`QuantizerConfig`.

    Attributes:
        thresholds: ``'kmeans'`` (default, the paper's), ``'uniform'`` (halfway between neighbouring
            levels) or the n thresholds in the scaled domain, which move with the levels of a
            signed input.
        scale_init: How calibration sets the scales: ``'range'`` (default, the paper's:
            ``beta = 5p / (4q)`` from the largest value q, ``alpha = 1 / beta``) or ``'mse'``
            (alpha, and with other thresholds than ``'kmeans'`` beta too, of the least squared
            error).
        zero_threshold: Weights only: where ``'kmeans'`` puts the two thresholds round the level 0
            of a set of signed levels. ``'auto'`` (default) is the paper's 0.05; None keeps what
            k-means found. A number is refused with other thresholds or levels, on which it would
            have no effect.
        learn_thresholds: Whether the thresholds are trained. Default False, as in the paper.
        backward_temperature: Temperature of the slope in the backward pass, which is still
            multiplied by T, as in the paper's code for binary weights; None (default) for the
            exact gradient.
        surrogate_temperature: Once T is above it, the gradients are those of the soft function at
            this temperature: the function comes near the staircase while the gradients keep their
            size. None (default) for the exact gradient.
    """

    depends_on_levels: ClassVar[tuple[str, ...]] = ('signed_levels', 'thresholds')

    thresholds: str | tuple[float, ...] = 'kmeans'
    scale_init: str = 'range'
    zero_threshold: str | float | None = of_role('weight', 'auto')
    learn_thresholds: bool = False
    backward_temperature: float | None = None
    surrogate_temperature: float | None = None

    def __post_init__(self) -> None:
        self._check_thresholds_type()
        super().__post_init__()
        check_choice(self.scale_init, ('range', 'mse'), self.name('scale_init'))
        check_bool(self.learn_thresholds, self.name('learn_thresholds'))
        if not isinstance(self.thresholds, str):
            self._set('thresholds', self._checked_thresholds())
            if isinstance(self.signed_levels, tuple):
                self.thresholds_of(self.signed_levels)
        self._check_zero_threshold()
        self._check_temperatures()

    def thresholds_of(self, levels: tuple[float, ...]) -> str | tuple[float, ...]:
        """Return ``thresholds`` for the levels that a quantizer has got at calibration.

        Numbers move with levels that are those of the config, moved as a whole: they stay where
        they were between their neighbours.

        Args:
            levels: Those of the config, or those of a signed input.

        Raises:
            ValueError: If the levels of a signed input have other distances.
        """
        if isinstance(self.thresholds, str):
            return self.thresholds
        shift = levels[0] - self.levels[0]
        pairs = zip(levels, self.levels, strict=True)
        if not all(math.isclose(new, old + shift, abs_tol=1e-6) for new, old in pairs):
            raise ValueError(
                f'`{self.name("thresholds")}` should be a name where an input is signed, or '
                f'belong to levels that only move for it, but got {list(self.thresholds)} between '
                f'{list(self.levels)}, and a signed input has the levels {list(levels)}; '
                '`quantization.overrides` can name other ones for it'
            )
        return as_float32([threshold + shift for threshold in self.thresholds])

    @property
    def paper_zero(self) -> float | None:
        """The distance of the two thresholds round 0 that k-means is overruled by, if any."""
        if not self.is_of_weights:
            return None
        if self.zero_threshold == 'auto':
            return PAPER_ZERO_THRESHOLD
        assert not isinstance(self.zero_threshold, str)
        return self.zero_threshold

    def automatic_signed_sets(self) -> list[tuple[float, ...]]:
        """Return the integers, and with thresholds of clusters a symmetric set without 0 too.

        k-means puts thresholds where the values are, not between the levels: then either set may be
        much nearer to the values. The nearest level needs no symmetry, and keeps a level at 0.
        Thresholds in a list belong to one range, that with as many levels on both sides of 0.
        """
        if not isinstance(self.thresholds, str):
            return [signed_counterpart(self.levels)]
        sets = super().automatic_signed_sets()
        if self.thresholds == 'kmeans':
            sets.append(zero_centred_counterpart(self.levels))
        return sets

    def _check_thresholds_type(self) -> None:
        key = self.name('thresholds')
        if isinstance(self.thresholds, str):
            if self.thresholds not in ('kmeans', 'uniform'):
                raise ValueError(
                    f"`{key}` should be 'kmeans', 'uniform' or a list of numbers, "
                    f'but got {self.thresholds!r}'
                )
        elif not is_list_of_numbers(self.thresholds):
            raise TypeError(
                f'`{key}` should be a name or a list of numbers, but got {self.thresholds!r}'
            )

    def _checked_thresholds(self) -> tuple[float, ...]:
        key, levels = self.name('thresholds'), self.levels
        values = as_float32([float(value) for value in self.thresholds])
        if len(values) != len(levels) - 1:
            raise ValueError(
                f'`{key}` should hold {len(levels) - 1} numbers for {len(levels)} levels, '
                f'but got {len(values)}: {list(values)}'
            )
        in_order = all(low <= high for low, high in pairwise(values))
        if not in_order or not all(map(math.isfinite, values)):
            raise ValueError(
                f'`{key}` should be finite and in increasing order, but got {list(values)}'
            )
        if values[0] < levels[0] or values[-1] > levels[-1]:
            raise ValueError(
                f'`{key}` should lie within the levels {levels[0]:g}..{levels[-1]:g}, since values '
                f'are scaled to their range, but got {list(values)}'
            )
        return values

    def _check_zero_threshold(self) -> None:
        zero, key = self.zero_threshold, self.name('zero_threshold')
        if zero == 'auto' or zero is None:
            return
        check_number(zero, key)
        levels = self.levels
        if self.thresholds != 'kmeans' or not (levels[0] < 0 < levels[-1] and 0.0 in levels):
            raise ValueError(
                f'`{key}` should be left out or None where it has no effect: it acts with the '
                f"thresholds 'kmeans' and a level 0 between others, but got {zero} with "
                f'{self.thresholds!r} and the levels {list(levels)}'
            )
        outermost = min(-levels[0], levels[-1])
        if float(zero) >= outermost:
            raise ValueError(
                f'`{key}` should be below the outermost level {outermost:g}, but got {zero}'
            )

    def _check_temperatures(self) -> None:
        for name in ('backward_temperature', 'surrogate_temperature'):
            check_number(getattr(self, name), self.name(name), optional=True)
            self.check_slope(getattr(self, name) or 1.0, name)
        if self.backward_temperature is not None and self.surrogate_temperature is not None:
            both = f'{self.backward_temperature} and {self.surrogate_temperature}'
            key = f'`{self.key}`' if self.key else 'a quantizer'
            raise ValueError(
                f'{key} should name `backward_temperature` or `surrogate_temperature`, but got '
                f'both: {both}'
            )

    def check_slope(self, temperature: float, name: str = 'temperature') -> None:
        """Refuse a temperature at which the slope of a step overflows.

        Raises:
            ValueError: If temperature times the largest distance of two levels is too large.
        """
        gap = max(high - low for low, high in pairwise(self.levels))
        if temperature * gap > LARGEST_SLOPE:
            raise ValueError(
                f'`{self.name(name)}` should be at most {LARGEST_SLOPE / gap:g} for levels '
                f'{gap:g} apart, or slopes overflow, but got {temperature}'
            )

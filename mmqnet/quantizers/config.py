"""Config of one quantizer: the dict of a config file, checked once and frozen."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from typing_extensions import Self

from mmqnet.quantizers.level_sets import as_float32, resolve_levels, signed_counterpart


def check_keys(config: Mapping[str, Any], known: Sequence[str], key: str) -> None:
    """Refuses a dict with keys that nobody reads.

    Raises:
        TypeError: If ``config`` is no dict.
        ValueError: If it holds an unknown key; the message names near misses.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f'`{key}` should be a dict, but got {config!r}')
    for name in config:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f' Did you mean {near[0]!r}?' if near else ''
            raise ValueError(
                f'`{key}` has the unknown key {name!r}; known keys are {sorted(known)}.{hint}'
            )


@dataclass(frozen=True)
class QuantizerConfig:
    """What weight and activation quantizers have in common.

    Attributes:
        levels: The n + 1 levels Y, see :func:`resolve_levels`.
        thresholds: ``'kmeans'``, ``'uniform'`` (halfway between neighbouring levels) or the n
            thresholds in the scaled domain.
        scale_init: How calibration sets the scales: ``'range'`` (default, the paper's:
            ``beta = 5p / (4q)`` from the largest value q, ``alpha = 1 / beta``) or ``'mse'``
            (alpha, and with other thresholds than ``'kmeans'`` beta too, of the least squared
            error).
        granularity: ``'layer'`` (default; one alpha and beta a layer, the paper's) or ``'model'``
            (one function for all layers together, the paper's table 6).
        learn_thresholds: Whether the thresholds are trained. Default False, as in the paper.
        backward_temperature: Temperature of the slope in the backward pass, which is still
            multiplied by T, as in the paper's code for binary weights; ``None`` (default) for the
            exact gradient.
        surrogate_temperature: Once T is above it, the gradients are those of the soft function at
            this temperature: the function comes near the staircase while the gradients keep their
            size. ``None`` (default) for the exact gradient.
    """

    levels: tuple[float, ...]
    thresholds: str | tuple[float, ...] = 'kmeans'
    scale_init: str = 'range'
    granularity: str = 'layer'
    learn_thresholds: bool = False
    backward_temperature: float | None = None
    surrogate_temperature: float | None = None

    zero_threshold: ClassVar[float | None] = None
    granularities: ClassVar[tuple[str, ...]] = ('layer', 'model')

    @property
    def is_shared(self) -> bool:
        """Whether all layers of the model share one quantizer."""
        return self.granularity == 'model'

    def levels_for(self, signed: bool) -> tuple[float, ...] | None:
        """Levels of an input that takes negative values or not; ``None`` leaves it in float."""
        return self.levels

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], key: str) -> Self:
        """Checks a config dict.

        Args:
            config: The dict of the config file.
            key: Where it stands there, for error messages, for example ``quantization.weight``.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a key is unknown or missing, or a value is out of range.
        """
        check_keys(config, [field.name for field in dataclasses.fields(cls)], key)
        if 'levels' not in config:
            raise ValueError(f'`{key}` should name its `levels`, but got {dict(config)}')
        values = dict(config)
        values['levels'] = resolve_levels(values['levels'], f'{key}.levels')
        thresholds = values.get('thresholds', 'kmeans')
        values['thresholds'] = _check_thresholds(thresholds, values['levels'], f'{key}.thresholds')
        _check_choice(values.get('scale_init', 'range'), ('range', 'mse'), f'{key}.scale_init')
        granularity = values.get('granularity', 'layer')
        _check_choice(granularity, cls.granularities, f'{key}.granularity')
        _check_bool(values.get('learn_thresholds', False), f'{key}.learn_thresholds')
        for name in ('backward_temperature', 'surrogate_temperature'):
            _check_positive(values.get(name), f'{key}.{name}')
        if values.get('backward_temperature') and values.get('surrogate_temperature'):
            raise ValueError(
                f'`{key}` should name `backward_temperature` or `surrogate_temperature`, but got '
                f'both: {values["backward_temperature"]} and {values["surrogate_temperature"]}'
            )
        return cls(**cls._check(values, key))

    @classmethod
    def _check(cls, values: dict[str, Any], key: str) -> dict[str, Any]:
        """Checks the keys that a subclass adds."""
        return values


@dataclass(frozen=True)
class WeightQuantizerConfig(QuantizerConfig):
    """Config of the quantizer of a layer's weights.

    Attributes:
        granularity: Also ``'channel'``: one alpha and beta an output channel; the thresholds, in
            the scaled domain, stay common.
        zero_threshold: Where ``'kmeans'`` puts the two thresholds round the level 0 of a set of
            signed levels; 0.05 in the paper. ``None`` keeps what k-means found. Refused with other
            thresholds or levels, on which it would have no effect.
    """

    zero_threshold: float | None = 0.05  # type: ignore[misc]

    granularities: ClassVar[tuple[str, ...]] = ('layer', 'channel', 'model')

    @classmethod
    def _check(cls, values: dict[str, Any], key: str) -> dict[str, Any]:
        zero = values.get('zero_threshold')
        _check_positive(zero, f'{key}.zero_threshold')
        levels, thresholds = values['levels'], values['thresholds']
        has_inner_zero = levels[0] < 0 < levels[-1] and 0.0 in levels
        if zero is not None and not (thresholds == 'kmeans' and has_inner_zero):
            raise ValueError(
                f'`{key}.zero_threshold` should be left out or None where it has no effect: it '
                "acts with the thresholds 'kmeans' and a level 0 between others, but got "
                f'{zero} with {thresholds!r} and the levels {list(levels)}'
            )
        return values


@dataclass(frozen=True)
class ActivationQuantizerConfig(QuantizerConfig):
    """Config of the quantizer of a layer's input.

    With the granularity ``'model'`` all inputs count as one: if any of them is signed, all get the
    levels for signed inputs.

    Attributes:
        signed_levels: What an input gets that is seen to be signed at calibration: ``'auto'``
            (default) for the zero-centred set with as many levels, a set with as many levels, or
            ``None`` to leave such an input in float.
    """

    signed_levels: tuple[float, ...] | None = None

    def levels_for(self, signed: bool) -> tuple[float, ...] | None:
        """Levels of an input that takes negative values or not; ``None`` leaves it in float."""
        return self.signed_levels if signed else self.levels

    @classmethod
    def _check(cls, values: dict[str, Any], key: str) -> dict[str, Any]:
        signed = values.get('signed_levels', 'auto')
        levels = values['levels']
        if levels[0] < 0:
            signed = levels  # already made for signed inputs
        elif signed == 'auto':
            signed = signed_counterpart(levels)
        elif signed is not None:
            signed = resolve_levels(signed, f'{key}.signed_levels')
            if len(signed) != len(levels):
                raise ValueError(
                    f'`{key}.signed_levels` should hold as many levels as `{key}.levels` '
                    f'({len(levels)}), but got {len(signed)}'
                )
        values['signed_levels'] = signed
        return values


def _check_thresholds(
    thresholds: Any, levels: tuple[float, ...], key: str
) -> str | tuple[float, ...]:
    if isinstance(thresholds, str):
        if thresholds not in ('kmeans', 'uniform'):
            raise ValueError(
                f"`{key}` should be 'kmeans', 'uniform' or a list of numbers, "
                f'but got {thresholds!r}'
            )
        return thresholds
    if not isinstance(thresholds, Sequence) or any(
        isinstance(value, bool) or not isinstance(value, int | float) for value in thresholds
    ):
        raise TypeError(f'`{key}` should be a name or a list of numbers, but got {thresholds!r}')
    values = as_float32([float(value) for value in thresholds])
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
    return values


def _check_choice(value: Any, choices: Sequence[str], key: str) -> None:
    if value not in choices:
        *others, last = map(repr, choices)
        allowed = f'{", ".join(others)} or {last}'
        raise ValueError(f'`{key}` should be {allowed}, but got {value!r}')


def _check_bool(value: Any, key: str) -> None:
    if not isinstance(value, bool):
        raise TypeError(f'`{key}` should be True or False, but got {value!r}')


def _check_positive(value: Any, key: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f'`{key}` should be a number or None, but got {value!r}')
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f'`{key}` should be positive and finite, but got {value!r}')

"""The ``quantization`` dict of a config file, checked once and frozen."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmqnet.models.patterns import matches
from mmqnet.quantizers import (
    ActivationQuantizerConfig,
    QuantizerConfig,
    WeightQuantizerConfig,
    check_keys,
)

_POSITIONS = ('first', 'last')


@dataclass(frozen=True)
class QuantizationConfig:
    """What to quantize, and how.

    Attributes:
        weight: Quantizer of the weights; None (default) leaves them in float.
        activation: Quantizer of the layers' inputs; None (default) leaves them in float.
        include: Patterns of the layers to quantize, see :func:`matches`. Default: all.
        exclude: Patterns of layers that stay in float, whatever ``include`` says. Default: none.
        keep_float: Which of the ``'first'`` and ``'last'`` layers of the model stay in float.
            Default: both.
        overrides: From pattern to a dict with ``weight`` or ``activation`` (or both), which
            replace the common ones, key by key; None stands for float. Later ones win.
    """

    weight: WeightQuantizerConfig | None = None
    activation: ActivationQuantizerConfig | None = None
    include: tuple[str, ...] = ('*',)
    exclude: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = _POSITIONS
    overrides: tuple[tuple[str, Mapping[str, QuantizerConfig | None]], ...] = ()

    @classmethod
    def from_dict(
        cls, config: Mapping[str, Any], key: str = 'quantization'
    ) -> 'QuantizationConfig':
        """Checks the dict of a config file.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a key is unknown, a value out of range, or nothing is to be quantized.
        """
        check_keys(config, [field.name for field in dataclasses.fields(cls)], key)
        keep_float = _strings(config.get('keep_float', _POSITIONS), f'{key}.keep_float')
        for position in keep_float:
            if position not in _POSITIONS:
                raise ValueError(
                    f"`{key}.keep_float` should hold 'first' and 'last' only, but got {position!r}"
                )
        result = cls(
            weight=_quantizer(WeightQuantizerConfig, config.get('weight'), f'{key}.weight'),
            activation=_quantizer(
                ActivationQuantizerConfig, config.get('activation'), f'{key}.activation'
            ),
            include=_strings(config.get('include', ('*',)), f'{key}.include'),
            exclude=_strings(config.get('exclude', ()), f'{key}.exclude'),
            keep_float=keep_float,
            overrides=_overrides(config, f'{key}.overrides'),
        )
        _check_shared(result, key)
        if result.weight is None and result.activation is None and not result.overrides:
            raise ValueError(
                f'`{key}` quantizes nothing: give `{key}.weight`, `{key}.activation` or '
                f'`{key}.overrides`'
            )
        return result

    def for_layer(
        self, name: str
    ) -> tuple[WeightQuantizerConfig | None, ActivationQuantizerConfig | None]:
        """Quantizers of the layer ``name``: the common ones and what overrides say of it."""
        chosen: dict[str, Any] = {'weight': self.weight, 'activation': self.activation}
        for pattern, override in self.overrides:
            if matches(name, pattern):
                chosen.update(override)
        return chosen['weight'], chosen['activation']


_QUANTIZER_TYPES = {'weight': WeightQuantizerConfig, 'activation': ActivationQuantizerConfig}


def _overrides(
    config: Mapping[str, Any], key: str
) -> tuple[tuple[str, Mapping[str, QuantizerConfig | None]], ...]:
    given = config.get('overrides', {})
    if not isinstance(given, Mapping):
        raise TypeError(f'`{key}` should be a dict from pattern to dict, but got {given!r}')
    result = []
    for pattern, override in given.items():
        if not isinstance(pattern, str):
            raise TypeError(f'the patterns of `{key}` should be strings, but got {pattern!r}')
        here = f'{key}[{pattern!r}]'
        check_keys(override, list(_QUANTIZER_TYPES), here)
        checked = {
            kind: _quantizer(
                _QUANTIZER_TYPES[kind], _merge(config.get(kind), value), f'{here}.{kind}'
            )
            for kind, value in override.items()
        }
        result.append((pattern, checked))
    return tuple(result)


def _check_shared(config: 'QuantizationConfig', key: str) -> None:
    """Refuses different functions for layers that are to share one."""
    for kind in _QUANTIZER_TYPES:
        given = [(f'{key}.{kind}', getattr(config, kind))]
        given += [
            (f'{key}.overrides[{pattern!r}].{kind}', override.get(kind))
            for pattern, override in config.overrides
        ]
        shared = [
            (name, quantizer) for name, quantizer in given if quantizer and quantizer.is_shared
        ]
        for name, quantizer in shared[1:]:
            if quantizer != shared[0][1]:
                raise ValueError(
                    f"`{name}` differs from `{shared[0][0]}`, though with `granularity='model'` "
                    "their layers share one function: give one of them `granularity='layer'`"
                )


def _merge(common: Any, override: Any) -> Any:
    """An override names only what differs; other levels bring their own thresholds."""
    if not isinstance(common, Mapping) or not isinstance(override, Mapping):
        return override
    base = dict(common)
    if 'levels' in override:
        base.pop('signed_levels', None)
        if not isinstance(base.get('thresholds', 'kmeans'), str):
            base.pop('thresholds')
    return {**base, **override}


def _quantizer(kind: type[QuantizerConfig], config: Any, key: str) -> Any:
    return None if config is None else kind.from_dict(config, key)


def _strings(value: Any, key: str) -> tuple[str, ...]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(isinstance(item, str) for item in value):
        raise TypeError(f'`{key}` should be a list of strings, but got {value!r}')
    return tuple(value)

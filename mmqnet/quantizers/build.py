"""From the dict of a config file to a quantizer."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mmqnet.checks import did_you_mean
from mmqnet.quantizers.base import Quantizer
from mmqnet.quantizers.config import DEFAULT_TYPE, QuantizerConfig
from mmqnet.quantizers.level_sets import resolve_levels
from mmqnet.registry import QUANTIZERS


def quantizer_config(config: Any, role: str, key: str) -> QuantizerConfig:
    """Check the dict of a config file by the method that its ``type`` names.

    Args:
        config: ``dict(type=..., levels=..., ...)``; without ``type`` it is the method of
            Quantization Networks. A config that has been checked already is returned.
        role: ``'weight'`` or ``'activation'``.
        key: Where the dict is in the config, for messages.

    Raises:
        TypeError: If it is no dict, or a value has the wrong type.
        ValueError: If the method or a key is unknown, or a value is out of range.
    """
    if isinstance(config, QuantizerConfig):
        return config
    if not isinstance(config, Mapping):
        raise TypeError(f'`{key}` should be a dict, but got {config!r}')
    method = _method(config.get('type', DEFAULT_TYPE), key)
    return method.config_class.from_dict(config, role, key)


def build_quantizer(config: QuantizerConfig, scale_shape: Sequence[int] = ()) -> Quantizer:
    """Make the quantizer of a config.

    Args:
        config: A checked config.
        scale_shape: Shape of its scales, broadcastable to what it quantizes. Default ``()``.
    """
    return _method(config.type, config.key)(config, scale_shape)


def merge_override(common: Any, override: Any) -> Any:
    """Return the dict of a quantizer with what an override says of it.

    An override names only what differs. With other levels, lists that fit the common ones are left
    out; with another method, the keys that only the common one has.

    Args:
        common: ``quantization.weight`` or ``.activation`` as the config file has it.
        override: The same of an override; None stands for float.
    """
    if not isinstance(common, Mapping) or not isinstance(override, Mapping):
        return override
    base, method = dict(common), common.get('type', DEFAULT_TYPE)
    if 'levels' in override and not _same_levels(base.get('levels'), override['levels']):
        for key in _method(method, 'type').config_class.depends_on_levels:
            if isinstance(base.get(key), Sequence) and not isinstance(base[key], str):
                base.pop(key)
    if override.get('type', method) != method:
        kept = {field.name for field in dataclasses.fields(QuantizerConfig)} - {'type'}
        base = {key: value for key, value in base.items() if key in kept}
    return {**base, **override}


def _same_levels(first: Any, second: Any) -> bool:
    try:
        return resolve_levels(first) == resolve_levels(second)
    except (TypeError, ValueError):
        return False  # whoever builds the quantizers says what is wrong


def _method(name: Any, key: str) -> type[Quantizer]:
    found = name if isinstance(name, type) else None
    if isinstance(name, str):
        with suppress(Exception):  # names with dots may make the registry import anything
            found = QUANTIZERS.get(name)
    if not isinstance(found, type) or not issubclass(found, Quantizer):
        known = sorted(QUANTIZERS.module_dict)
        raise ValueError(
            f'`{key}.type` should be a quantizer ({", ".join(known)}, or one of your own '
            f'registered in `mmqnet.registry.QUANTIZERS` by a module in `custom_imports`), but '
            f'got {name!r}.{did_you_mean(name, known)}'
        )
    return found

"""``mmqnet.QuantizedModel``: builds a float model and converts it."""

import logging
from collections.abc import Iterable
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from mmqnet.calibration import report_float_activations
from mmqnet.checks import did_you_mean, near_misses
from mmqnet.config_paths import without_scopes
from mmqnet.models.bypasses import refuse_bypasses
from mmqnet.models.convert import convert
from mmqnet.models.quantization_config import QuantizationConfig
from mmqnet.registry import MODELS

# The keys of a quantized model's own; those of a float model may resemble them, as `normalization`.
_MEANINGS = dict(
    architecture="the `type` of the float model, for example 'SingleStageDetector'",
    quantization="a dict such as a recipe's, `quantization=dict(**_base_.quantization)`",
)


def check_model_keys(keys: Iterable[str]) -> None:
    """Check that the config of a quantized model has the keys of its own, and no misspelt ones.

    Args:
        keys: Those of ``model``.

    Raises:
        ValueError: If one is missing, or nearly has the name of one of them.

    Example:
        >>> check_model_keys(['architecture', 'quantizaton', 'backbone'])
        Traceback (most recent call last):
            ...
        ValueError: `model` has the unknown key 'quantizaton'. Did you mean 'quantization'?
    """
    keys = list(keys)
    for key in keys:
        if key not in _MEANINGS and near_misses(key, _MEANINGS, cutoff=0.8):
            raise ValueError(f'`model` has the unknown key {key!r}.{did_you_mean(key, _MEANINGS)}')
    for key, meaning in _MEANINGS.items():
        if key not in keys:
            raise ValueError(f'`model.{key}` is missing: it should be {meaning}')


@MODELS.register_module()
def QuantizedModel(  # noqa: N802 -- one name in configs and code
    architecture: str | None = None, quantization: dict[str, Any] | None = None, **model: Any
) -> nn.Module:
    """Build the float model of a config and convert it in place.

    The result is an instance of the architecture's own class, with all its checkpoint keys.

    Args:
        architecture: ``type`` of the float model, for example ``'SingleStageDetector'``.
        quantization: What to quantize, and how; see :class:`QuantizationConfig`.
        **model: The rest of the float model's config.

    Raises:
        TypeError: If a value of ``quantization`` has the wrong type.
        ValueError: If ``architecture`` or ``quantization`` is missing or misspelt, a key or value
            of ``quantization`` is wrong, a pattern matches no layer, no layer can be quantized, or
            a module would bypass a quantized one.

    Example:
        >>> model = MMENGINE_MODELS.build(dict(
        ...     type='mmqnet.QuantizedModel',
        ...     architecture='mmqnet.AlexNetBN', channels=[8] * 5, hidden_channels=8,
        ...     quantization=dict(weight=dict(levels='pm4'), activation=dict(levels='uint8'))))
        >>> type(model).__name__, len(model.quantization_report.quantized)
        ('AlexNetBN', 5)
    """
    given = dict(architecture=architecture, quantization=quantization)
    check_model_keys([*(key for key, value in given.items() if value is not None), *model])
    if not isinstance(architecture, str):
        raise TypeError(
            f'`architecture` should be {_MEANINGS["architecture"]}, but got {architecture!r}'
        )
    # before the long work of building
    config = QuantizationConfig.from_dict(without_scopes(quantization))
    float_model = MMENGINE_MODELS.build(dict(type=architecture, **model))
    report = convert(float_model, config)
    refuse_bypasses(float_model)
    float_model.register_load_state_dict_post_hook(_report_when_loaded)
    print_log(report.table(), logger='current', level=logging.INFO)
    float_model.quantization_report = report
    return float_model


def _report_when_loaded(model: nn.Module, incompatible_keys: Any) -> None:
    report_float_activations(model)

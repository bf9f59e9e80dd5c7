"""``mmqnet.QuantizedModel``: builds a float model and converts it."""

import logging
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from mmqnet.models.bypasses import refuse_bypasses
from mmqnet.models.convert import convert
from mmqnet.models.float_activations import report_float_activations
from mmqnet.models.quantization_config import QuantizationConfig
from mmqnet.registry import MODELS


@MODELS.register_module()
def QuantizedModel(  # noqa: N802 -- one name in configs and code
    architecture: str, quantization: dict[str, Any], **model: Any
) -> nn.Module:
    """Build the float model of a config and convert it in place.

    The result is an instance of the architecture's own class, with all its checkpoint keys.

    Args:
        architecture: ``type`` of the float model, for example ``'SingleStageDetector'``.
        quantization: What to quantize, and how; see :class:`QuantizationConfig`.
        **model: The rest of the float model's config.

    Raises:
        TypeError: If a value of ``quantization`` has the wrong type.
        ValueError: If a key or value of ``quantization`` is wrong, a pattern matches no layer,
            no layer can be quantized, or a module would bypass a quantized one.

    Example:
        >>> model = MMENGINE_MODELS.build(dict(
        ...     type='mmqnet.QuantizedModel',
        ...     architecture='mmqnet.AlexNetBN', channels=[8] * 5, hidden_channels=8,
        ...     quantization=dict(weight=dict(levels='pm4'), activation=dict(levels='uint8'))))
        >>> type(model).__name__, len(model.quantization_report.quantized)
        ('AlexNetBN', 5)
    """
    if not isinstance(architecture, str):
        raise TypeError(
            '`architecture` should be the `type` of the float model, for example '
            f"'SingleStageDetector', but got {architecture!r}"
        )
    config = QuantizationConfig.from_dict(quantization)  # before the long work of building
    float_model = MMENGINE_MODELS.build(dict(type=architecture, **model))
    report = convert(float_model, config)
    refuse_bypasses(float_model)
    float_model.register_load_state_dict_post_hook(report_float_activations)
    print_log(report.table(), logger='current', level=logging.INFO)
    float_model.quantization_report = report
    return float_model

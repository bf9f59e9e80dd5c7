"""Small models and quantizers that several tests build."""

import math
from typing import Any

import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmqnet.calibration import calibrate
from mmqnet.quantizers import (
    QuantizationNetwork,
    Quantizer,
    QuantizerConfig,
    quantizer_config,
    quantizers_of,
)

W3A8 = dict(weight=dict(levels='pm4'), activation=dict(levels='uint8'))


def weight_config(levels: Any = 'pm4', **config: Any) -> QuantizerConfig:
    return quantizer_config(dict(levels=levels, **config), 'weight', 'weight')


def activation_config(levels: Any = 'uint2', **config: Any) -> QuantizerConfig:
    return quantizer_config(dict(levels=levels, **config), 'activation', 'activation')


@torch.no_grad()
def ready(quantizer: QuantizationNetwork, beta: float = 2.0, signed: bool = True) -> Quantizer:
    """Calibrates a quantizer by hand, with its thresholds halfway between the levels."""
    sets = quantizer.config.level_sets(signed)
    quantizer.enabled.fill_(bool(sets))
    quantizer.levels.copy_(torch.tensor(sets[0] if sets else quantizer.config.levels))
    quantizer.thresholds.copy_((quantizer.levels[1:] + quantizer.levels[:-1]) / 2)
    quantizer.log_alpha.fill_(-math.log(beta))
    quantizer.log_beta.fill_(math.log(beta))
    quantizer.calibrated.fill_(True)
    quantizer.refresh()
    return quantizer


def resnet(**config: Any) -> dict[str, Any]:
    return dict(type='mmdet.ResNet', depth=18, base_channels=8, stem_channels=8) | config


def classifier(**backbone: Any) -> dict[str, Any]:
    """Return MMPretrain's ResNet-18 with 8 channels and 3 classes."""
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(num_classes=3, mean=[127.0] * 3, std=[60.0] * 3),
        backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8) | backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead', num_classes=3, in_channels=64, loss=dict(type='CrossEntropyLoss')
        ),
    )


def quantized(model: dict[str, Any], **quantization: Any) -> dict[str, Any]:
    """Return the config of the quantized model of a float model's config."""
    return {
        **model,
        'type': 'mmqnet.QuantizedModel',
        'architecture': model['type'],
        'quantization': quantization or W3A8,
    }


def build(model: dict[str, Any], scope: str = 'mmdet') -> nn.Module:
    """Build a model as a tool of the library ``scope`` does, with its random initial weights."""
    with DefaultScope.overwrite_default_scope(scope):
        built = MODELS.build(model)
        built.init_weights()
    return built


def calibrated(model: nn.Module, *inputs: Tensor, mode: str = 'tensor') -> nn.Module:
    """Calibrate a model on input tensors."""
    takes_mode = hasattr(model, 'data_preprocessor')
    calibrate(model, inputs, lambda x: model(x, mode=mode) if takes_mode else model(x))
    assert all(quantizer.is_calibrated for quantizer in quantizers_of(model).values())
    return model

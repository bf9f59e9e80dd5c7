"""Channels and layers whose weights are zeros or denormal numbers."""

import pytest
import torch
from toy_models import calibrated

from mmqnet.layers import QuantConv2d

LEVELS = ['binary', 'ternary', 'pm4', 'int8']


@pytest.mark.parametrize('dead', [0.0, 1e-45, 1e-40, 1e-38, 1e-30])
@pytest.mark.parametrize('scale_init', ['range', 'mse'])
@pytest.mark.parametrize('thresholds', ['kmeans', 'uniform'])
@pytest.mark.parametrize('granularity', ['layer', 'channel'])
@pytest.mark.parametrize('channels', [[1], [0, 1, 2]])
def test_scales_and_gradients_are_finite(dead, scale_init, thresholds, granularity, channels):
    for levels in LEVELS:
        config = dict(
            levels=levels, scale_init=scale_init, thresholds=thresholds, granularity=granularity
        )
        layer = QuantConv2d(2, 3, 3, weight_quantizer=config)
        with torch.no_grad():
            layer.weight[channels] = dead * layer.weight[channels].sign()
        x = torch.randn(1, 2, 5, 5)
        calibrated(layer, x)
        quantizer = layer.weight_quantizer
        staircase = quantizer.staircase(layer.weight)
        for tensor in (staircase.alpha, staircase.beta, 1 / staircase.alpha, staircase.thresholds):
            assert tensor.isfinite().all(), levels
        for temperature in (1.0, 100.0):
            quantizer.set_temperature(temperature)
            layer.zero_grad()
            layer.train()(x).sum().backward()
            assert all(p.grad.isfinite().all() for p in layer.parameters()), levels
        assert layer.eval()(x).isfinite().all()


@pytest.mark.parametrize('levels', LEVELS)
def test_a_dead_channel_stays_nearly_dead(levels):
    layer = QuantConv2d(2, 3, 3, weight_quantizer=dict(levels=levels, granularity='channel'))
    with torch.no_grad():
        layer.weight[1] = 0
        calibrated(layer, torch.randn(1, 2, 5, 5)).eval()
        weight = layer.quantized_weight()
    assert weight[1].abs().max() <= 1e-5 * weight.abs().max()

"""Initial scales and thresholds, against the paper's rules."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toy_models import calibrated, weight_config

from mmqnet.layers import QuantConv2d
from mmqnet.ops import kmeans_1d
from mmqnet.quantizers import resolve_levels
from mmqnet.quantizers.quantization_network.thresholds import initial_thresholds

SETS = ['binary', 'ternary', 'pm2', 'pm4', 'int5', 'int8', 'uint1', 'uint2', 'uint8']


class TestPaper:
    VALUES = torch.randn(4000, generator=torch.Generator().manual_seed(0))

    def thresholds(self, name, zero=0.05):
        return initial_thresholds(self.VALUES, resolve_levels(name), 'kmeans', zero)

    def test_binary_weights(self):
        assert self.thresholds('binary').tolist() == [0.0]

    def test_ternary_weights(self):
        assert torch.equal(self.thresholds('ternary'), torch.tensor([-0.05, 0.05]))

    @pytest.mark.parametrize('name', ['ternary', 'pm4'])
    def test_zero_is_opened_as_far_as_asked_for(self, name):
        zero = resolve_levels(name).index(0.0)
        found = self.thresholds(name, zero=0.3)[zero - 1 : zero + 1]
        assert torch.equal(found, torch.tensor([-0.3, 0.3]))

    @pytest.mark.parametrize('name', ['pm2', 'pm4', 'int5', 'int8'])
    def test_others_lie_between_centres_with_zero_opened(self, name):
        levels = resolve_levels(name)
        found = self.thresholds(name)
        zero = levels.index(0.0)
        assert torch.equal(found[zero - 1 : zero + 1], torch.tensor([-0.05, 0.05]))
        centres = kmeans_1d(self.VALUES, len(levels))
        middles = (centres[1:] + centres[:-1]) / 2
        assert torch.equal(found[: zero - 1], middles[: zero - 1].clamp(max=-0.05))
        assert torch.equal(found[zero + 1 :], middles[zero + 1 :].clamp(min=0.05))

    @pytest.mark.parametrize('name', ['uint2', 'uint8', 'ternary', 'binary'])
    def test_activations_have_no_special_case(self, name):
        levels = resolve_levels(name)
        centres = kmeans_1d(self.VALUES, len(levels))
        expected = (centres[1:] + centres[:-1]) / 2
        assert torch.equal(self.thresholds(name, zero=None), expected)


@settings(max_examples=40, deadline=None)
@given(
    values=arrays('float32', st.integers(20, 200), elements=st.floats(-50, 50, width=32)),
    name=st.sampled_from(SETS),
    zero=st.sampled_from([None, 0.05, 0.5, 30.0]),
)
def test_always_ordered_and_as_many_as_gaps(values, name, zero):
    values, levels = torch.from_numpy(values), resolve_levels(name)
    if values.min() == values.max():
        return
    thresholds = initial_thresholds(values, levels, 'kmeans', zero)
    assert thresholds.shape == (len(levels) - 1,)
    assert (thresholds.diff() >= 0).all()


@pytest.mark.parametrize('name', SETS)
def test_uniform_is_halfway_between_levels(name):
    levels = torch.tensor(resolve_levels(name))
    found = initial_thresholds(torch.empty(0), tuple(levels.tolist()), 'uniform', 0.05)
    assert torch.equal(found, (levels[1:] + levels[:-1]) / 2)


def test_given_thresholds_are_taken():
    assert initial_thresholds(torch.empty(0), (0.0, 1.0, 2.0), (0.25, 3.0), 0.05).tolist() == [
        0.25,
        3,
    ]


class TestWeights:
    def layer(self, **config):
        layer = QuantConv2d(3, 8, 3)
        layer.add_quantizers(weight_config(**config), None)
        return layer

    @pytest.mark.parametrize('levels', ['binary', 'ternary', 'pm4', 'int8'])
    def test_alpha_beta_and_thresholds(self, levels):
        layer = calibrated(self.layer(levels=levels))
        q, weight = layer.weight_quantizer, layer.weight.detach()
        p = max(resolve_levels(levels))
        beta = torch.tensor(5 * p / 4) / weight.abs().max()
        torch.testing.assert_close(q.beta, beta)
        torch.testing.assert_close(q.alpha, 1 / beta)
        torch.testing.assert_close(q.alpha * q.beta, torch.tensor(1.0), rtol=3e-7, atol=0)
        expected = initial_thresholds((beta * weight).flatten(), q.config.levels, 'kmeans', 0.05)
        assert torch.equal(q.thresholds, expected)

    def test_large_weights_keep_their_size(self):
        """The largest weight lands on the outermost level, whose value is 4/5 of it."""
        layer = calibrated(self.layer(levels='pm4')).eval()
        largest = layer.weight.abs().max()
        torch.testing.assert_close(layer.quantized_weight().abs().max(), 0.8 * largest)

    def test_channels_of_nothing_but_zeros(self):
        layer = self.layer(levels='pm4', granularity='channel')
        layer.weight.data[2] = 0
        calibrated(layer).eval()
        quantized = layer.quantized_weight()
        assert quantized.isfinite().all()
        assert not quantized[2].any()

    @pytest.mark.parametrize('value', [0.0, 0.3, -2.0])
    def test_weights_that_are_all_the_same(self, value):
        layer = self.layer(levels='pm4')
        layer.weight.data.fill_(value)
        quantized = calibrated(layer).eval().quantized_weight()
        assert (quantized.sign() == torch.tensor(value).sign()).all()

    @pytest.mark.parametrize('value', [float('nan'), float('inf')])
    def test_weights_that_are_not_finite(self, value):
        layer = self.layer(levels='pm4')
        layer.weight.data[1, 2, 0, 0] = value
        with pytest.raises(ValueError, match=r'weights `weight` are not finite: check'):
            calibrated(layer)

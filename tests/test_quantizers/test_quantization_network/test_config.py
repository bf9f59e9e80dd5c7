"""Configs of quantizers: what they resolve to, and one clear line for each mistake."""

import dataclasses

import pytest
from mmengine.config import ConfigDict

from mmqnet.quantizers import QuantizationNetworkConfig, quantizer_config


def weights(**config):
    return quantizer_config(config, 'weight', 'quantization.weight')


def activations(**config):
    return quantizer_config(config, 'activation', 'quantization.activation')


def test_defaults_are_those_of_the_paper():
    config = weights(levels='ternary')
    assert config.levels == (-1.0, 0.0, 1.0)
    assert config.thresholds == 'kmeans'
    assert config.granularity == 'layer'
    assert config.paper_zero == 0.05
    assert not config.learn_thresholds
    assert config.backward_temperature is None
    assert activations(levels='uint8').paper_zero is None


@pytest.mark.parametrize('thresholds', ['kmeans', 'uniform'])
def test_zero_threshold_that_is_none_goes_with_everything(thresholds):
    for levels in ('binary', 'ternary', 'pm2'):
        config = weights(levels=levels, thresholds=thresholds, zero_threshold=None)
        assert config.zero_threshold is None


def test_config_is_frozen_and_takes_the_dict_of_mmengine():
    config = weights(**ConfigDict(levels=[-1, 0, 2], thresholds=[-0.5, 1]))
    assert config.levels == (-1.0, 0.0, 2.0)
    assert config.thresholds == (-0.5, 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.levels = ()


@pytest.mark.parametrize(
    ('config', 'error', 'message'),
    [
        (dict(), ValueError, r'`quantization\.weight` should name its `levels`, but got \{\}'),
        (dict(level='pm4'), ValueError, "unknown key 'level'.*Did you mean 'levels'"),
        (dict(levels='pm4', grain='layer'), ValueError, "unknown key 'grain'.*known keys are"),
        (dict(levels='pm4', signed_levels='auto'), ValueError, "unknown key 'signed_levels'"),
        (dict(levels='pm3'), ValueError, r"`quantization\.weight\.levels`.*'pm3'"),
        (dict(levels='pm4', thresholds='kmean'), ValueError, r"\.thresholds`.*but got 'kmean'"),
        (
            dict(levels='pm4', thresholds=[0, 1]),
            ValueError,
            r'`quantization\.weight\.thresholds` should hold 6 numbers for 7 levels, but got 2',
        ),
        (
            dict(levels='ternary', thresholds=[1, -1]),
            ValueError,
            r'\.thresholds` should be finite and in increasing order, but got \[1\.0, -1\.0\]',
        ),
        (dict(levels='binary', thresholds=[float('nan')]), ValueError, 'finite'),
        (dict(levels='binary', thresholds=[1e39]), ValueError, 'finite'),
        (
            dict(levels='ternary', thresholds=[-0.5, 3]),
            ValueError,
            r'weight\.thresholds` should lie within the levels -1\.\.1, .*but got \[-0\.5, 3\.0\]',
        ),
        (
            dict(levels='uint2'),
            ValueError,
            r'weight\.levels` should have levels below and above 0, .*\[0\.0, 1\.0, 2\.0, 3\.0\]',
        ),
        (
            dict(levels=[-1, 1, 1 + 1e-7 * 3]),
            ValueError,
            r'weight\.levels` should hold levels that still differ in float32 after scaling',
        ),
        (
            dict(levels='ternary', zero_threshold=1),
            ValueError,
            r'zero_threshold` should be below the outermost level 1, but got 1',
        ),
        (
            dict(levels='ternary', surrogate_temperature=1e31),
            ValueError,
            r'surrogate_temperature` should be at most 1e\+30 .*slopes overflow',
        ),
        (
            dict(type='Quantization', levels='ternary'),
            ValueError,
            r"`quantization\.weight\.type` should be a quantizer \(.*got 'Quantization'\. Did you",
        ),
        (dict(levels='binary', thresholds=0), TypeError, r'\.thresholds`.*but got 0'),
        (dict(levels='binary', thresholds=['0']), TypeError, 'list of numbers'),
        (dict(levels='pm4', learn_thresholds=1), TypeError, 'True or False, but got 1'),
        (dict(levels='pm4', backward_temperature=0), ValueError, 'positive and finite, but got 0'),
        (dict(levels='pm4', backward_temperature='1'), TypeError, "but got '1'"),
        (
            dict(levels='pm4', surrogate_temperature=-6),
            ValueError,
            'positive and finite, but got -6',
        ),
        (
            dict(levels='pm4', surrogate_temperature=6, backward_temperature=1),
            ValueError,
            '`backward_temperature` or `surrogate_temperature`, but got both: 1 and 6',
        ),
        (
            dict(levels='pm4', granularity='tensor'),
            ValueError,
            r"\.granularity` should be 'layer', 'channel' or 'model', but got 'tensor'",
        ),
        (
            dict(levels='pm4', scale_init='max'),
            ValueError,
            r"\.scale_init`.*'range' or 'mse'",
        ),
        (dict(levels='pm4', zero_threshold=-0.05), ValueError, r'\.zero_threshold`.*-0\.05'),
        (
            dict(levels='pm4', thresholds='uniform', zero_threshold=0.1),
            ValueError,
            r"weight\.zero_threshold` should be left out or None .*got 0\.1 with 'uniform'",
        ),
        (
            dict(levels='ternary', thresholds=[-1, 1], zero_threshold=0.1),
            ValueError,
            r'\.zero_threshold` should be left out .*0\.1 with \(-1\.0, 1\.0\)',
        ),
        (
            dict(levels='binary', zero_threshold=0.1),
            ValueError,
            r'\.zero_threshold` should be left out .*the levels \[-1\.0, 1\.0\]',
        ),
    ],
)
def test_wrong_weight_configs(config, error, message):
    with pytest.raises(error, match=message):
        weights(**config)


def test_a_config_must_be_a_dict():
    with pytest.raises(TypeError, match=r"`quantization\.weight` should be a dict, but got 'pm4'"):
        quantizer_config('pm4', 'weight', 'quantization.weight')


def test_thresholds_may_coincide():
    assert weights(levels='ternary', thresholds=[0, 0]).thresholds == (0.0, 0.0)


RANGES = [(0.0, 1.0, 2.0, 3.0), (-1.0, 0.0, 1.0, 2.0), (-2.0, -1.0, 0.0, 1.0)]
WITHOUT_ZERO = (-1.5, -0.5, 0.5, 1.5)


@pytest.mark.parametrize(
    ('thresholds', 'signed_levels', 'sets'),
    [
        ('uniform', 'auto', RANGES),
        ('uniform', 'symmetric', RANGES[2:]),
        ('kmeans', 'auto', [*RANGES, WITHOUT_ZERO]),
        ('kmeans', 'symmetric', [*RANGES[2:], WITHOUT_ZERO]),
        ([0, 1, 1], 'auto', RANGES[2:]),
    ],
)
def test_signed_inputs_get_a_set_that_suits_the_thresholds(thresholds, signed_levels, sets):
    config = activations(levels='uint2', thresholds=thresholds, signed_levels=signed_levels)
    assert config.level_sets(signed=False) == [(0.0, 1.0, 2.0, 3.0)]
    assert config.level_sets(signed=True) == sets


def test_configs_are_checked_where_they_are_made():
    config = QuantizationNetworkConfig('ternary', thresholds='uniform')
    assert config.levels == (-1.0, 0.0, 1.0)
    assert config == weights(levels='ternary', thresholds='uniform')  # wherever it comes from
    with pytest.raises(ValueError, match="`thresholds` should be 'kmeans', 'uniform'"):
        QuantizationNetworkConfig('ternary', thresholds='mean')
    with pytest.raises(ValueError, match='`signed_levels` is a key of quantizers of activations'):
        QuantizationNetworkConfig('ternary', signed_levels=None)
    with pytest.raises(ValueError, match="`role` should be 'weight' or 'activation'"):
        QuantizationNetworkConfig('ternary', role='bias')


def test_signed_inputs_may_stay_in_float_or_get_a_set_of_their_own():
    assert activations(levels='uint2', signed_levels=None).level_sets(signed=True) == []
    chosen = activations(levels='uint2', signed_levels=[-3, -1, 1, 3])
    assert chosen.level_sets(signed=True) == [(-3.0, -1.0, 1.0, 3.0)]


class TestListedThresholds:
    def test_they_move_with_the_levels_of_a_signed_input(self):
        config = activations(levels='uint2', thresholds=[0.25, 1.5, 2.75])
        assert config.thresholds_of((0.0, 1.0, 2.0, 3.0)) == (0.25, 1.5, 2.75)
        assert config.thresholds_of((-2.0, -1.0, 0.0, 1.0)) == (-1.75, -0.5, 0.75)

    def test_names_stay_names(self):
        assert activations(levels='uint2').thresholds_of((-2.0, -1.0, 0.0, 1.0)) == 'kmeans'

    def test_levels_with_other_distances_are_refused(self):
        given = dict(levels='uint2', thresholds=[0.5, 1.5, 2.5])
        message = (
            r'`quantization\.activation\.thresholds` should be a name where an input is signed'
        )
        with pytest.raises(ValueError, match=message):
            activations(**given, signed_levels=[-3, -1, 1, 3])
        config = activations(levels='uapot2', thresholds=[0.5, 1.5, 3])
        with pytest.raises(
            ValueError, match=rf'{message}.*the levels \[-2\.0, -1\.0, 0\.0, 1\.0\]'
        ):
            config.thresholds_of((-2.0, -1.0, 0.0, 1.0))


def test_signed_levels_serve_both_kinds_of_input():
    config = activations(levels='pm2')
    assert config.level_sets(signed=True) == config.level_sets(signed=False) == [config.levels]


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(levels='uint2', signed_levels='int2'), r'as many levels.*\(4\), but got 3'),
        (dict(levels='uint2', signed_levels='uint'), r'activation\.signed_levels`.*\'uint\''),
        (
            dict(levels='uint2', signed_levels='symetric'),
            r"activation\.signed_levels` should be 'auto', 'symmetric', a set .*'symmetric'\?",
        ),
        (dict(levels=[0, 1, 2]), r'`signed_levels` should be given'),
        (
            dict(levels='uint2', granularity='channel'),
            "should be 'layer' or 'model', but got 'channel'",
        ),
    ],
)
def test_wrong_activation_configs(config, message):
    with pytest.raises(ValueError, match=message):
        activations(**config)


def test_a_set_that_starts_at_zero_but_is_not_unsigned_works_if_signed_levels_are_given():
    assert activations(levels=[0, 1, 4], signed_levels=None).levels == (0.0, 1.0, 4.0)

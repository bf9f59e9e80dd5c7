"""The `quantization` dict of a config file."""

import pytest

from mmqnet.models import QuantizationConfig

WEIGHT = dict(levels='pm4')
ACTIVATION = dict(levels='uint8')


def parse(**config):
    return QuantizationConfig.from_dict(config)


def test_defaults():
    config = parse(weight=WEIGHT)
    assert config.activation is None
    assert config.include == ('*',)
    assert config.exclude == ()
    assert config.keep_float == ('first', 'last')
    assert config.for_layer('any') == (config.weight, None, None)


def test_overrides_change_what_they_name():
    config = parse(
        weight=dict(levels='pm4', granularity='channel'),
        activation=dict(levels='uint8', thresholds='uniform'),
        overrides={
            'a': dict(weight=dict(levels='int5')),
            'a.b': dict(activation=None),
            '*.c': dict(weight=None),
        },
    )
    weight, activation, _ = config.for_layer('a.x')
    assert (len(weight.levels), weight.granularity) == (31, 'channel')
    assert (len(activation.levels), activation.thresholds) == (256, 'uniform')
    assert config.for_layer('a.b.c') == (None, None, None)
    assert config.for_layer('z') == (config.weight, config.activation, None)


def test_overrides_with_other_levels_bring_their_own_thresholds_and_signed_levels():
    config = parse(
        weight=dict(levels='ternary', thresholds=[-0.1, 0.1]),
        activation=dict(levels='uint2', signed_levels=[-3, -1, 1, 3]),
        overrides={'a': dict(weight=dict(levels='pm4'), activation=dict(levels='uint4'))},
    )
    weight, activation, _ = config.for_layer('a')
    assert weight.thresholds == 'kmeans'
    assert activation.signed_levels == 'auto'


def test_an_override_with_other_levels_leaves_signed_inputs_in_float_as_the_common_one_does():
    config = QuantizationConfig(
        activation=dict(levels='uint2', signed_levels=None),
        overrides={'a': dict(activation=dict(levels='uint4'))},
    )
    assert config.for_layer('a').activation.signed_levels is None


def test_positions_change_what_they_name():
    config = parse(
        weight=dict(levels='pm4', granularity='channel'),
        activation=dict(levels='uint2', thresholds='uniform'),
        keep_float=[],
        first=dict(activation=dict(levels='uint8')),
        last=dict(weight=None),
        overrides={'a': dict(weight=dict(levels='int5'))},
    )
    weight, activation, _ = config.for_layer('b', ['first'])
    assert weight == config.weight
    assert (len(activation.levels), activation.thresholds) == (256, 'uniform')
    assert config.for_layer('b', ['last']) == (None, config.activation, None)
    assert config.for_layer('b', ['first', 'last']) == (None, activation, None)
    assert len(config.for_layer('a', ['last'])[0].levels) == 31  # overrides name the layer itself
    assert config.for_layer('b') == (config.weight, config.activation, None)


def test_sums_replace_the_common_activation_key_by_key():
    config = parse(activation=dict(levels='uint2', thresholds='uniform'), sums=dict(levels='uint8'))
    assert (len(config.sums.levels), config.sums.thresholds) == (256, 'uniform')
    assert config.sums.key == 'quantization.sums'
    assert parse(weight=WEIGHT).sums is None


def test_outputs_replace_the_common_activation_key_by_key():
    config = parse(
        activation=dict(levels='uint2', thresholds='uniform'),
        keep_float=[],
        last=dict(output=dict(levels='uint8')),
        overrides={'a': dict(output=None), 'b': dict(output=dict(thresholds='kmeans'))},
    )
    output = config.for_layer('c', ['last']).output
    assert (len(output.levels), output.thresholds) == (256, 'uniform')
    assert output.key == 'quantization.last.output'
    assert config.for_layer('c').output is config.for_layer('a', ['last']).output is None
    assert config.for_layer('b').output.thresholds == 'kmeans'


def test_overrides_alone():
    config = parse(overrides={'a': dict(weight=WEIGHT)})
    assert config.for_layer('b') == (None, None, None)
    assert len(config.for_layer('a')[0].levels) == 7


@pytest.mark.parametrize(
    ('config', 'error', 'message'),
    [
        (dict(), ValueError, r'`quantization` quantizes nothing: give `quantization\.weight`'),
        (dict(weights=WEIGHT), ValueError, "unknown key 'weights'.*Did you mean 'weight'"),
        (dict(weight='pm4'), TypeError, r"`quantization\.weight` should be a dict, but got 'pm4'"),
        (dict(weight=dict(levels='pm')), ValueError, r"`quantization\.weight\.levels`.*'pm'"),
        (dict(weight=WEIGHT, include='a'), TypeError, r"\.include` should be a list.*got 'a'"),
        (dict(weight=WEIGHT, exclude=[1]), TypeError, r'\.exclude` should be a list.*got \[1\]'),
        (dict(weight=WEIGHT, keep_float='first'), TypeError, r"\.keep_float` .*got 'first'"),
        (dict(weight=WEIGHT, keep_float=['frist']), ValueError, r"\.keep_float` .*got 'frist'"),
        (dict(weight=WEIGHT, overrides=['a']), TypeError, r'\.overrides` should be a dict'),
        (
            dict(weight=WEIGHT, overrides={1: dict(weight=None)}),
            TypeError,
            r'the patterns of `quantization\.overrides` should be strings, but got 1',
        ),
        (
            dict(weight=WEIGHT, overrides={'a': dict(levels='pm4')}),
            ValueError,
            r"`quantization\.overrides\['a'\]` has the unknown key 'levels'",
        ),
        (
            dict(weight=WEIGHT, overrides={'a': dict(weight=dict(levels=[2, 1]))}),
            ValueError,
            r"`quantization\.overrides\['a'\]\.weight\.levels` .*strictly increasing",
        ),
        (
            dict(weight=WEIGHT, overrides={'a': dict(activation=dict(zero_threshold=1))}),
            ValueError,
            r"\.overrides\['a'\]\.activation` has the unknown key 'zero_threshold'",
        ),
        (dict(weight=WEIGHT, keep_float=[], first='pm4'), TypeError, r'\.first` should be a dict'),
        (
            dict(weight=WEIGHT, keep_float=[], last=dict(levels='pm4')),
            ValueError,
            r"`quantization\.last` has the unknown key 'levels'",
        ),
        (
            dict(weight=WEIGHT, keep_float=[], last=dict(weight=dict(levels='int9'))),
            ValueError,
            r"`quantization\.last\.weight\.levels` .*'int9'",
        ),
        (
            dict(weight=WEIGHT, first=dict(weight=dict(levels='int8'))),
            ValueError,
            r'`quantization\.first` can have no effect while `quantization\.keep_float` holds',
        ),
        (dict(activation=ACTIVATION, sums=8), TypeError, r'\.sums` should be a dict, but got 8'),
        (
            dict(activation=ACTIVATION, sums=dict(zero_threshold=1)),
            ValueError,
            r"`quantization\.sums` has the unknown key 'zero_threshold'",
        ),
        (
            dict(activation=ACTIVATION, sums=dict(granularity='model')),
            ValueError,
            r"`quantization\.sums\.granularity` should be 'layer'.*got 'model'",
        ),
        (
            dict(weight=WEIGHT, overrides={'a': dict(output=dict(levels='uint9'))}),
            ValueError,
            r"`quantization\.overrides\['a'\]\.output\.levels` .*'uint9'",
        ),
        (
            dict(
                activation=dict(levels='uint8', granularity='model'),
                overrides={'a': dict(output=dict(levels='uint8'))},
            ),
            ValueError,
            r"\.output\.granularity` should be 'layer', as outputs do not share",
        ),
        (
            dict(weight=WEIGHT, sums=ACTIVATION),
            ValueError,
            r'`quantization\.sums` can have no effect.*give `quantization\.activation`',
        ),
    ],
)
def test_mistakes(config, error, message):
    with pytest.raises(error, match=message):
        parse(**config)

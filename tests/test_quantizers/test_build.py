"""From the dicts of a config file to that of a quantizer."""

import pytest

from mmqnet.quantizers import merge_override, quantizer_config

COMMON = dict(levels='uint2', signed_levels=[-2, -1, 0, 1], thresholds=[0, 1, 2])


@pytest.mark.parametrize(
    ('override', 'left'),
    [
        (dict(granularity='model'), {'signed_levels', 'thresholds'}),
        (dict(levels='uint4'), set()),
        (dict(levels=[0, 1, 2, 3]), {'signed_levels', 'thresholds'}),
        (dict(type='LSQ'), {'signed_levels'}),
        (dict(type='LSQ', levels='uint4'), set()),
    ],
)
def test_an_override_leaves_out_what_fits_the_common_levels_or_method_only(override, left):
    merged = merge_override(COMMON, override)
    assert merged.keys() - override.keys() - {'levels'} == left
    assert quantizer_config(merged, 'activation', 'q').level_sets(signed=False)


@pytest.mark.parametrize('method', ['QuantizationNetwork', 'LSQ', 'LSQPlus'])
@pytest.mark.parametrize('inherited', ['auto', 'symmetric', None])
def test_levels_below_0_replace_a_name_or_none_from_the_common_config(inherited, method):
    common = dict(type='LSQ', levels='uint4', signed_levels=inherited)
    merged = merge_override(common, dict(type=method, levels='int4'))
    config = quantizer_config(merged, 'activation', 'q')
    assert config.level_sets(signed=True) == config.level_sets(signed=False) == [config.levels]

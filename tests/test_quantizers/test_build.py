"""From the dicts of a config file to that of a quantizer."""

import pytest

from mmqnet.quantizers import merge_override, quantizer_config

COMMON = dict(levels='uint2', signed_levels=[-2, -1, 0, 1], thresholds=[0, 1, 2])


@pytest.mark.parametrize(
    ('override', 'left'),
    [
        (dict(granularity='model'), {'signed_levels', 'thresholds'}),
        (dict(levels='uint4'), set()),
        (dict(type='LSQ'), {'signed_levels'}),
        (dict(type='LSQ', levels='uint4'), set()),
    ],
)
def test_an_override_leaves_out_what_fits_the_common_levels_or_method_only(override, left):
    merged = merge_override(COMMON, override)
    assert merged.keys() - override.keys() - {'levels'} == left
    assert quantizer_config(merged, 'activation', 'q').level_sets(signed=False)

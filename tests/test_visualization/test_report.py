"""The facts of a model's report."""

import torch
from torch import nn

from mmqnet.calibration import calibrate
from mmqnet.layers import QuantLinear
from mmqnet.visualization.report.facts import activation_facts

UNIFORM = dict(levels='uint4', thresholds='uniform', scale_init='mse')


def test_levels_are_those_that_calibration_chose():
    for batch, lowest in ((torch.rand(64, 8), 0), (torch.rand(64, 8) - 0.25, -4)):
        model = nn.Sequential(QuantLinear(8, 4, input_quantizer=UNIFORM))
        calibrate(model, [batch], model)
        facts = activation_facts(model, [batch], model)['0.input_quantizer']
        assert facts.levels == f'16: {lowest}..{lowest + 15}'


def test_shares_beyond_the_levels():
    model = nn.Sequential(QuantLinear(8, 4, input_quantizer=UNIFORM))
    calibrate(model, [torch.rand(64, 8)], model)
    facts = activation_facts(model, [torch.tensor([[-1.0, 0.5, 9, 9, 9, 0.1, 0.2, 0.3]])], model)
    assert (facts['0.input_quantizer'].below, facts['0.input_quantizer'].above) == (1 / 8, 3 / 8)

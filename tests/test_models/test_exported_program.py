"""``torch.export`` of a whole quantized detector: exporters build on its graph."""

import torch
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from toy_models import calibrated, quantized

from mmqnet.quantizers import quantizers_of


def test_each_quantizer_of_ssd300_is_one_node():
    model = get_config('mmdet::ssd/ssd300_coco.py').model
    model.backbone.init_cfg = None  # it would be downloaded
    settings = dict(
        weight=dict(levels='pm4', thresholds='uniform'),
        activation=dict(levels='uint8', thresholds='uniform'),
        include=['backbone'],
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(quantized(model, **settings))
    calibrated(detector, torch.randn(1, 3, 300, 300)).eval()
    detector.eval()  # SSDVGG's does not return the model
    with torch.no_grad():
        exported = torch.export.export(detector, (torch.randn(2, 3, 300, 300),))
    operators = [node.target for node in exported.graph.nodes if node.op == 'call_function']
    quantizers = quantizers_of(detector)
    assert len(quantizers) == 28
    assert operators.count(torch.ops.mmqnet.hard_quantize.default) == len(quantizers)
    assert operators.count(torch.ops.aten.conv2d.default) == 35
    assert not any('wrap_with_set_grad_enabled' in str(operator) for operator in operators)

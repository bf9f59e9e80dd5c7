"""Upstream models of many families: converted, calibrated, trained one step and evaluated hard."""

import dataclasses
from pathlib import Path

import families
import models_page
import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample
from torch.nn.modules.batchnorm import _BatchNorm

from mmqnet.calibration import calibrate
from mmqnet.layers import QuantizedLayer, parameter_roles
from mmqnet.quantizers import Mode, quantizers_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('family', families.FAMILIES, ids=lambda family: family.name)
def test_calibrates_trains_and_evaluates(family):
    model = families.build(family)
    batch = batch_of(family)
    settle(model, batch)
    calibrate(model, [model.data_preprocessor(batch)], lambda x: model(**x, mode='tensor'))
    train_one_step(model, batch)
    evaluate(model, batch)


# modules whose sums are between integers, of those families that integer runtimes are fed with
SUMS = {
    'SSD': 0,
    'RetinaNet': 8 + 1,
    'FCOS': 8 + 1,
    'ATSS': 8 + 1,
    'GFL': 8 + 1,
    'YOLOX': 3,
    'RTMDet': 3,
    'Faster R-CNN': 8 + 1,
    'ResNet': 16,
    'MobileNetV2': 11,
    'VGG': 0,
}


@pytest.mark.parametrize('name', SUMS)
def test_nothing_but_integers(name):
    (family,) = (family for family in families.FAMILIES if family.name == name)
    eight_bits = dict(levels='uint8')
    everything = dict(include=['*'], keep_float=[], last=dict(output=eight_bits), sums=eight_bits)
    family = dataclasses.replace(family, quantization={**family.quantization, **everything})
    model = families.build(family)
    assert not model.quantization_report.skipped
    assert len(model.quantization_report.sums) == SUMS[name]
    batch = batch_of(family)
    settle(model, batch)
    calibrate(model, [model.data_preprocessor(batch)], lambda x: model(**x, mode='tensor'))
    train_one_step(model, batch)
    evaluate(model, batch)


def test_enough_of_both_packages():
    packages = [family.package for family in families.FAMILIES]
    assert packages.count('mmdet') >= 20
    assert packages.count('mmpretrain') >= 20


def test_the_page_is_what_the_models_give():
    page = (ROOT / 'docs' / 'models.md').read_text(encoding='utf-8')
    assert page == models_page.page(), 'run `python tests/helpers/models_page.py`'


def batch_of(family):
    """Two synthetic images with their labels, as the data preprocessor takes them."""
    shape = (3, family.size, family.size)
    if family.package == 'mmdet':
        with_mask = 'mask' in family.config
        return demo_mm_inputs(
            2, image_shapes=[shape] * 2, num_items=[2, 1], num_classes=3, with_mask=with_mask
        )
    images = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(i) for i in (0, 2)])


@torch.no_grad()
def settle(model, batch):
    """Gives random weights what a checkpoint brings: no zeros, batch statistics that fit."""
    for parameter in model.parameters():
        if not parameter.any() and parameter.dim() != 1:
            parameter.normal_(std=0.01)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    set_modes(model, Mode.FLOAT)
    model.eval()
    for norm in norms:
        norm.train().momentum = 1.0
        norm.weight.fill_(1.0)
    model(**model.data_preprocessor(batch), mode='tensor')
    for norm in norms:
        norm.momentum = 0.1
    set_modes(model, Mode.LEARNED)


def set_modes(model, mode):
    for quantizer in quantizers_of(model).values():
        quantizer.set_mode(mode)


def train_one_step(model, batch):
    model.train()
    MessageHub.get_current_instance().update_info('epoch', 0)  # which TOOD asks for
    loss, _ = model.parse_losses(
        model(**model.data_preprocessor(batch, training=True), mode='loss')
    )
    assert loss.isfinite()
    loss.backward()
    check_gradients(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def check_gradients(model):
    """All weights and scales are in the graph; a few get zeros, as behind 1 x 1 maps."""
    roles = parameter_roles(model)
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and roles[name] != 'other'
    }
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    reached = [name for name, gradient in gradients.items() if gradient.any()]
    assert len(reached) > 0.6 * len(gradients)


@torch.no_grad()
def evaluate(model, batch):
    """Predicts with hard functions, which leave 7 values of a layer's weights."""
    model.eval()
    results = model(**model.data_preprocessor(batch), mode='predict')
    assert len(results) == 2
    for layer in model.modules():
        if isinstance(layer, QuantizedLayer) and layer.weight_quantizer is not None:
            assert 2 <= len(layer.quantized_weight().unique()) <= 7

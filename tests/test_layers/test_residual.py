"""Residual blocks: the input is quantized once, for all that read it."""

import copy

import pytest
import torch
from torch import nn
from toy_models import build, calibrated, classifier, quantized, resnet

from mmqnet.quantizers import Quantizer, quantizers_of


def detection_backbone(**config):
    return build(quantized(resnet(**config), **QUANTIZATION))


def classification_backbone(**config):
    return build(quantized(classifier(**config), **QUANTIZATION), 'mmpretrain').backbone


QUANTIZATION = dict(
    weight=dict(levels='pm4'), activation=dict(levels='uint4'), keep_float=['first']
)
BUILDERS = [detection_backbone, classification_backbone]


@pytest.fixture(params=BUILDERS)
def backbone_of(request):
    def make(training=False, **config):
        backbone = calibrated(request.param(**config), torch.randn(2, 3, 32, 32))
        backbone.train(training)  # which returns None: the backbones override it
        return backbone

    return make


def blocks_of(backbone):
    return [block for i in (1, 2, 3, 4) for block in getattr(backbone, f'layer{i}')]


@pytest.mark.parametrize('depth', [18, 50])
def test_one_quantizer_for_all_readers(backbone_of, depth):
    for block in blocks_of(backbone_of(depth=depth)):
        assert isinstance(block.input_quantizer, Quantizer)
        assert block.conv1.input_quantizer is None
        assert block.conv2.input_quantizer is not None
        assert block.conv2.weight_quantizer is not None
        if block.downsample is not None:
            assert block.downsample[0].input_quantizer is None
            assert block.downsample[0].weight_quantizer is not None


@torch.no_grad()
def test_all_readers_get_the_quantized_input(backbone_of):
    for block in blocks_of(backbone_of())[:3]:  # with and without a down-sample convolution
        seen = {}
        calls = []
        block.input_quantizer.register_forward_hook(lambda *_, c=calls: c.append(1))
        block.conv1.register_forward_pre_hook(lambda _, x, s=seen: s.update(conv1=x[0]))
        x = 3 * torch.rand(1, block.conv1.in_channels, 8, 8)
        torch.nn.init.normal_(block.norm2.weight)  # MMDetection starts with 0
        if block.downsample is not None:
            block.downsample[0].register_forward_pre_hook(lambda _, x, s=seen: s.update(down=x[0]))
        out = block(x)
        codes = block.input_quantizer(x)
        assert len(calls) == 2  # that of the block's forward, and ours
        assert all(torch.equal(value, codes) for value in seen.values())
        # the identity too: the block written out
        identity = codes if block.downsample is None else block.downsample(codes)
        inner = block.norm1(block.conv1(codes)).relu()
        expected = (block.norm2(block.conv2(inner)) + identity).relu()
        torch.testing.assert_close(out, expected)
        assert not torch.equal(codes, x)


@torch.no_grad()
def test_the_identity_stays_in_float_if_so_asked():
    model = build(quantized(resnet(), **QUANTIZATION, quantize_identity=False))
    calibrated(model, torch.randn(2, 3, 32, 32)).eval()
    with_downsample = set()
    for block in blocks_of(model):
        with_downsample.add(block.downsample is not None)
        nn.init.normal_(block.norm2.weight)  # MMDetection starts with 0
        x = 3 * torch.rand(1, block.conv1.in_channels, 8, 8)
        if block.downsample is None:  # the identity is the input
            assert not hasattr(block, 'input_quantizer')
            codes, identity = block.conv1.input_quantizer(x), x
            inner = block.norm1(block.conv1(x)).relu()
        else:
            codes = block.input_quantizer(x)
            identity, inner = block.downsample(codes), block.norm1(block.conv1(codes)).relu()
        assert not torch.equal(codes, x)
        torch.testing.assert_close(block(x), (block.norm2(block.conv2(inner)) + identity).relu())
    assert with_downsample == {False, True}


def test_activation_checkpointing_changes_nothing(backbone_of):
    plain = backbone_of(training=True)
    results = []
    for with_cp in (False, True):
        backbone = copy.deepcopy(plain)
        for block in blocks_of(backbone):
            block.with_cp = with_cp
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
        out = backbone(x)[-1]
        out.square().sum().backward()
        results.append((out, {n: p.grad for n, p in backbone.named_parameters()}))
    (out, gradients), (other_out, other_gradients) = results
    assert torch.equal(out, other_out)
    for name, gradient in gradients.items():
        assert (gradient is None) == (other_gradients[name] is None), name
        if gradient is not None:
            assert torch.equal(gradient, other_gradients[name]), name


def test_with_cp_of_a_config_works_with_learned_thresholds():
    config = dict(QUANTIZATION, weight=dict(levels='pm4', learn_thresholds=True))
    backbone = build(quantized(resnet(with_cp=True), **config))
    calibrated(backbone, torch.randn(2, 3, 32, 32))
    backbone.train()
    backbone(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    assert all(p.grad is not None for p in backbone.layer4.parameters())


def test_different_readers_keep_their_own_quantizers():
    """An override of one of them: the block cannot quantize once for all."""
    overrides = {'layer2.0.downsample.0': dict(activation=dict(levels='uint8'))}
    backbone = build(quantized(resnet(), **QUANTIZATION, overrides=overrides))
    block = backbone.layer2[0]
    assert not hasattr(block, 'input_quantizer')
    assert len(block.downsample[0].input_quantizer.levels) == 256
    assert len(block.conv1.input_quantizer.levels) == 16
    assert isinstance(backbone.layer2[1].input_quantizer, Quantizer)


def test_float_first_block_reader():
    """With conv1 excluded the down-sample convolution quantizes its own input."""
    backbone = build(quantized(resnet(), **QUANTIZATION, exclude=['layer2.0.conv1']))
    block = backbone.layer2[0]
    assert type(block.conv1) is nn.Conv2d
    assert block.downsample[0].input_quantizer is not None


def test_average_pool_before_the_downsample_convolution(backbone_of):
    """ResNet-D: the pool comes first, so the convolution reads another tensor."""
    backbone = backbone_of(avg_down=True)
    block = backbone.layer2[0]
    assert isinstance(block.downsample[0], nn.AvgPool2d)
    assert block.downsample[1].input_quantizer is not None
    assert block.input_quantizer.is_calibrated


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='mmdet.ResNeXt', depth=50, groups=2, base_width=4),
        dict(type='mmdet.Res2Net', depth=50, scales=4, base_width=26),
        dict(type='mmdet.ResNeSt', depth=50),
        dict(type='mmpretrain.SEResNeXt', depth=50, groups=2, width_per_group=4),
    ],
    ids=lambda backbone: backbone['type'],
)
def test_descendants_whose_forward_reads_the_input_once(backbone):
    config = dict(backbone, base_channels=8, stem_channels=8)
    blocks = blocks_of(build(quantized(config, **QUANTIZATION)))
    assert len(blocks) == 16
    for block in blocks:
        assert isinstance(block.input_quantizer, Quantizer)
        assert block.conv1.input_quantizer is None


@pytest.mark.parametrize(
    ('backbone', 'stage'),
    [
        (dict(type='TridentResNet', num_branch=3, trident_dilations=(1, 2, 3), num_stages=3,
              test_branch_idx=1, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
         'layer3'),
        (dict(type='DetectoRS_ResNet', rfp_inplanes=16, output_img=True), 'layer4'),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else value,
)  # fmt: skip
def test_blocks_that_are_entered_in_another_way(backbone, stage):
    """TridentNet's blocks take lists, DetectoRS's are entered by `rfp_forward` too."""
    config = dict(backbone, depth=50, base_channels=8, stem_channels=8)
    model = build(quantized(config, **QUANTIZATION))
    for block in getattr(model, stage):
        assert not hasattr(block, 'input_quantizer')
        assert block.conv1.input_quantizer is not None


def test_blocks_survive_deepcopy(backbone_of):
    backbone = backbone_of()
    clone = copy.deepcopy(backbone)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(backbone(x)[-1], clone(x)[-1])
        for quantizer in quantizers_of(clone).values():
            quantizer.log_alpha.data += 1
        assert not torch.equal(backbone(x)[-1], clone(x)[-1])

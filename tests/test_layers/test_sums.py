"""Sums of integers: which operands are quantized, and that they are what is added."""

import copy
import pickle
from typing import Any

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from toy_models import build, calibrated, classifier, quantized, resnet

from mmqnet.layers import activation_quantizers, parameter_roles, summed_outputs
from mmqnet.layers.fpn import QuantFPN
from mmqnet.quantizers import Mode, Quantizer, quantizers_of

QUANTIZATION: dict[str, Any] = dict(
    weight=dict(levels='pm4', thresholds='uniform', scale_init='mse'),
    activation=dict(levels='uint4', thresholds='uniform', scale_init='mse'),
    sums=dict(levels='uint8'),
    keep_float=['first'],
)
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def backbone_of(kind='mmdet', quantization=QUANTIZATION, **config):
    if kind == 'mmpretrain':
        model = build(quantized(classifier(**config), **quantization), 'mmpretrain').backbone
    else:
        model = build(quantized(resnet(**config), **quantization))
    return with_branches(model)


def with_branches(backbone):
    """MMDetection starts with normalizations of 0 at the ends of branches."""
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return backbone


def is_on_grid(x, quantizer):
    """Whether values are the scale times levels of the quantizer."""
    codes = (x / quantizer.alpha).round()
    low, high = quantizer.levels[[0, -1]].tolist()
    return torch.equal(codes * quantizer.alpha, x) and low <= codes.min() and codes.max() <= high


@pytest.mark.parametrize('kind', ['mmdet', 'mmpretrain'])
@pytest.mark.parametrize('depth', [18, 50])
@torch.no_grad()
def test_operands_of_residual_sums(kind, depth):
    backbone = calibrated(backbone_of(kind, depth=depth), X)
    backbone.eval()
    for block in [*backbone.layer1, *backbone.layer2]:
        assert (block.downsample is None) == (not hasattr(block, 'identity_quantizer'))
        x = torch.rand(1, block.conv1.in_channels, 8, 8)
        taken = block.input_quantizer(x)
        seen = {}
        hooks = [
            module.register_forward_hook(
                lambda *args, n=name, s=seen: s.update({n: args[2].clone()})
            )
            for name, module in summed_outputs(block).items()
        ]
        out = block(x)
        assert all(is_on_grid(operand, getattr(block, n)) for n, operand in seen.items())
        identity = seen.get('identity_quantizer', taken)
        assert torch.equal(out, (seen['branch_quantizer'] + identity).relu())
        assert block.branch_quantizer.levels[0] < 0  # a branch takes both signs
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def test_the_identity_has_the_levels_of_sums_if_the_layers_input_is_its_own():
    settings = {**QUANTIZATION, 'quantize_identity': False}
    backbone = calibrated(backbone_of(quantization=settings), X)
    backbone.eval()
    block, x = backbone.layer1[1], torch.rand(1, 8, 8, 8)
    assert len(block.input_quantizer.levels) == 256
    assert len(block.conv1.input_quantizer.levels) == 16
    identity = block.input_quantizer(x)
    inner = block.norm1(block.conv1(identity)).relu()
    branch = block.branch_quantizer(block.norm2(block.conv2(inner)))
    assert torch.equal(block(x), (branch + identity).relu())
    first = backbone.layer2[0]  # its identity is down-sampled, from what conv1 gets
    assert len(first.input_quantizer.levels) == 16
    assert len(first.identity_quantizer.levels) == 256


def test_all_parts_see_the_quantizers():
    backbone = backbone_of()
    names = {f'layer{i}.{j}.branch_quantizer' for i in (1, 2, 3, 4) for j in (0, 1)}
    names |= {f'layer{i}.0.identity_quantizer' for i in (2, 3, 4)}
    assert names < set(activation_quantizers(backbone))
    roles = parameter_roles(backbone)
    assert all(roles[f'{name}.log_alpha'] == 'scale' for name in names)
    added = {
        f'{sums.name}.{name}'
        for sums in backbone.quantization_report.sums
        for name in sums.quantizers
    }
    assert added == names


def test_without_the_key_nothing_is_added():
    config = {key: value for key, value in QUANTIZATION.items() if key != 'sums'}
    plain = build(quantized(resnet(), **config))
    assert not plain.quantization_report.sums
    calibrated(plain, X)
    model = backbone_of()
    model.load_state_dict(plain.state_dict())  # an earlier checkpoint fits
    pending = [name for name, q in quantizers_of(model).items() if not q.is_calibrated]
    assert len(pending) == 8 + 3
    assert all(name.endswith(('branch_quantizer', 'identity_quantizer')) for name in pending)
    calibrated(model, X)


@pytest.mark.parametrize('mode', list(Mode))
@pytest.mark.parametrize('config', [dict(), dict(with_cp=True), dict(norm_eval=False)], ids=str)
def test_gradients_flow(config, mode):
    backbone = calibrated(backbone_of(**config), X)
    backbone.train()
    for name, quantizer in quantizers_of(backbone).items():
        if name.endswith(('branch_quantizer', 'identity_quantizer')):
            assert quantizer.training  # though the normalization before it may be in evaluation
            quantizer.set_mode(mode)
    backbone(X)[-1].square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        if mode is Mode.LEARNED and 'branch_quantizer.log_alpha' in name:
            assert parameter.grad.abs() > 0, name


@pytest.mark.parametrize('kind', ['mmdet', 'mmpretrain'])
@pytest.mark.parametrize('method', ['QuantizationNetwork', 'LSQ'])
def test_gradients_in_evaluation(kind, method):
    """Class activation maps: blocks add in place to what the quantizers give."""
    settings = {**QUANTIZATION, 'sums': dict(levels='uint8', type=method)}
    backbone = calibrated(backbone_of(kind, settings), X)
    backbone.eval()
    x = X.clone().requires_grad_()
    out = backbone(x)[-1]
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.any()
    with torch.no_grad():
        assert torch.equal(out, backbone(X)[-1])


def test_frozen_stages_with_one_function_for_all():
    weight = dict(QUANTIZATION['weight'], granularity='model')
    settings = {**QUANTIZATION, 'weight': weight}
    backbone = calibrated(backbone_of(quantization=settings, frozen_stages=1), X)
    backbone.train()
    backbone(X)[-1].sum().backward()
    assert backbone.layer2[0].conv1.weight.grad.any()


def test_activation_checkpointing_changes_nothing():
    plain = calibrated(backbone_of(norm_eval=True), X)
    gradients = []
    for with_cp in (False, True):
        backbone = copy.deepcopy(plain)
        for block in backbone.modules():
            if hasattr(block, 'with_cp'):
                block.with_cp = with_cp
        backbone.train()
        backbone(X)[-1].square().sum().backward()
        gradients.append({n: p.grad for n, p in backbone.named_parameters()})
    assert all(torch.equal(g, gradients[1][n]) for n, g in gradients[0].items() if g is not None)


@pytest.mark.parametrize('copy_of', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@torch.no_grad()
def test_copies(copy_of):
    backbone = calibrated(backbone_of(), X)
    backbone.eval()
    clone = copy_of(backbone)
    assert torch.equal(backbone(X)[-1], clone(X)[-1])
    before = backbone(X)[-1]
    clone.layer4[1].branch_quantizer.log_alpha.add_(1)
    assert torch.equal(backbone(X)[-1], before)
    assert not torch.equal(clone(X)[-1], before)


@torch.no_grad()
def test_checkpoints(tmp_path):
    source = calibrated(backbone_of(), X)
    source.eval()
    target = build(quantized(resnet(), **QUANTIZATION))
    target.load_state_dict(source.state_dict(), strict=True)
    target.eval()
    assert torch.equal(source(X)[-1], target(X)[-1])


@torch.no_grad()
def test_normalizations_that_mmengine_replaces():
    """`sync_bn` makes new normalizations, without the hooks of those that the config built."""
    config = quantized(resnet(norm_cfg=dict(type='SyncBN')), **QUANTIZATION)
    backbone = revert_sync_batchnorm(with_branches(build(config)))
    calibrated(backbone, X)
    backbone.eval()
    before = backbone(X)[-1]
    backbone.layer4[1].branch_quantizer.log_alpha.add_(1)
    assert not torch.equal(backbone(X)[-1], before)


@torch.no_grad()
def test_compiled_and_exported():
    backbone = calibrated(backbone_of(), X)
    backbone.eval()
    expected = backbone(X)[-1]
    compiled = torch.compile(backbone, backend='aot_eager', fullgraph=True)
    assert torch.equal(compiled(X)[-1], expected)
    exported = torch.export.export(backbone, (X,))
    assert torch.equal(exported.module()(X)[-1], expected)
    nodes = [n for n in exported.graph.nodes if n.target is torch.ops.mmqnet.hard_quantize.default]
    assert len(nodes) == len(quantizers_of(backbone))


def test_frozen_stages():
    backbone = backbone_of(frozen_stages=2)
    backbone.train()
    for stage, learns in ((backbone.layer2, False), (backbone.layer3, True)):
        quantizer = stage[0].branch_quantizer
        assert quantizer.training is learns
        assert all(parameter.requires_grad is learns for parameter in quantizer.parameters())


@pytest.mark.parametrize(
    ('change', 'has_sum'),
    [
        (dict(exclude=['layer2.1.conv2']), False),
        (dict(overrides={'layer2.1.conv2': dict(activation=None)}), False),
        (dict(overrides={'layer2.1.conv2': dict(activation=dict(levels='uint8'))}), True),
    ],
    ids=str,
)
def test_blocks_with_layers_in_float_add_floats(change, has_sum):
    backbone = build(quantized(resnet(), **QUANTIZATION, **change))
    assert hasattr(backbone.layer2[1], 'branch_quantizer') is has_sum
    assert hasattr(backbone.layer2[0], 'branch_quantizer')


def test_a_branch_that_ends_in_a_plugin():
    plugin = dict(
        cfg=dict(type='ContextBlock', ratio=0.5), stages=(False, True, False, False),
        position='after_conv3',
    )  # fmt: skip
    config = resnet(depth=50, plugins=[plugin])
    backbone = build(config)
    block = backbone.layer2[0]
    assert summed_outputs(block)['branch_quantizer'] is block.context_block
    assert summed_outputs(backbone.layer1[0])['branch_quantizer'] is backbone.layer1[0].norm3


SHORTCUTS = [
    (dict(type='mmpretrain.MobileNetV2', widen_factor=0.25), 'conv', 11),
    (dict(type='mmpretrain.MobileNetV3', arch='small'), 'linear_conv', 6),
    (dict(type='mmdet.Darknet', depth=53, out_indices=(5,)), 'conv2', 23),
    (dict(type='mmdet.CSPDarknet', widen_factor=0.125, deepen_factor=0.33), 'conv2', 7),
    (dict(type='mmdet.CSPNeXt', widen_factor=0.125, deepen_factor=0.33), 'conv2', 5),
    (dict(type='mmpretrain.SEResNet', depth=50, base_channels=8, stem_channels=8), 'se_layer', 16),
    (dict(type='mmdet.Res2Net', depth=50, scales=4, base_width=26, base_channels=8), 'norm3', 16),
]


@pytest.mark.parametrize(('config', 'branch', 'count'), SHORTCUTS, ids=lambda v: str(v)[:40])
@torch.no_grad()
def test_other_blocks(config, branch, count):
    """Their input, which they add as it is, is an integer too."""
    model = calibrated(build(quantized(config, **QUANTIZATION)), torch.randn(2, 3, 64, 64))
    model.eval()
    sums = model.quantization_report.sums
    assert len(sums) == count
    for place in sums:
        block = model.get_submodule(place.name)
        assert summed_outputs(block)['branch_quantizer'] is getattr(block, branch)
        assert isinstance(block.input_quantizer, Quantizer)
        assert block.branch_quantizer.is_calibrated


@torch.no_grad()
def test_a_branch_with_an_output_quantizer_of_its_own():
    """Both act, the layer's first."""
    config = dict(type='mmdet.CSPDarknet', widen_factor=0.125, deepen_factor=0.33)
    overrides = {'stage1.1.blocks.0.conv2.conv': dict(output=dict(levels='uint2'))}
    model = build(quantized(config, **QUANTIZATION, overrides=overrides))
    calibrated(model, torch.randn(2, 3, 64, 64)).eval()
    block = model.stage1[1].blocks[0]
    x, last = torch.rand(1, 8, 8, 8), block.conv2
    identity = block.input_quantizer(x)
    out = last.output_quantizer(last.activate(last.bn(last.conv(block.conv1(identity)))))
    branch = block.branch_quantizer(out)
    assert not torch.equal(branch, out)
    assert torch.equal(block(x), branch + identity)


def test_the_input_of_a_shortcut_is_quantized_twice_at_different_bits_only():
    config = dict(type='mmdet.CSPDarknet', widen_factor=0.125, deepen_factor=0.33)
    model = build(quantized(config, **QUANTIZATION))
    block = model.stage1[1].blocks[0]
    assert len(block.input_quantizer.levels) == 256
    assert len(block.conv1.conv.input_quantizer.levels) == 16
    same = dict(QUANTIZATION, activation=dict(QUANTIZATION['activation'], levels='uint8'))
    block = build(quantized(config, **same)).stage1[1].blocks[0]
    assert len(block.input_quantizer.levels) == 256
    assert block.conv1.conv.input_quantizer is None


def neck(**config):
    channels = [4, 8, 16, 32]
    return dict(type='mmdet.FPN', in_channels=channels, out_channels=8, num_outs=5) | config


FEATURES = [torch.randn(2, 4 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4)]
NECKS = [
    dict(),
    dict(start_level=1, add_extra_convs='on_input', relu_before_extra_convs=True),
    dict(add_extra_convs='on_lateral', num_outs=6),
    dict(add_extra_convs='on_output', num_outs=6),
    dict(upsample_cfg=dict(mode='bilinear')),
    dict(upsample_cfg=dict(mode='nearest', scale_factor=2)),
    dict(end_level=2, num_outs=3),
    dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')),
]


def quantized_neck(**config):
    quantization = dict(QUANTIZATION, keep_float=[])
    return build(quantized(neck(**config), **quantization))


@pytest.mark.parametrize('config', NECKS, ids=str)
@torch.no_grad()
def test_fpn_computes_what_it_did(config):
    with DefaultScope.overwrite_default_scope('mmdet'):
        plain = MODELS.build(neck(**config))
    model = quantized_neck(**config)
    assert type(model) is QuantFPN
    model.load_state_dict(plain.state_dict(), strict=True)
    for quantizer in quantizers_of(model).values():
        quantizer.set_mode(Mode.FLOAT)
    plain.eval(), model.eval()
    outs = zip(model(FEATURES), plain(FEATURES), strict=True)
    assert all(torch.equal(out, expected) for out, expected in outs)


@torch.no_grad()
def test_operands_of_the_top_down_path():
    model = calibrated(quantized_neck(start_level=1, add_extra_convs='on_output'), FEATURES).eval()
    (place,) = model.quantization_report.sums
    assert place.quantizers == (
        *('lateral_convs.0.output_quantizer', 'lateral_convs.1.output_quantizer'),
        *('lateral_convs.1.sum_quantizer', 'lateral_convs.2.output_quantizer'),
    )
    fine, middle, coarse = model.lateral_convs
    operands = [
        conv.output_quantizer(conv(x))
        for conv, x in zip(model.lateral_convs, FEATURES[1:], strict=True)
    ]
    total = middle.sum_quantizer(operands[1] + up(operands[2]))
    assert is_on_grid(operands[0], fine.output_quantizer)
    assert is_on_grid(operands[2], coarse.output_quantizer)
    assert is_on_grid(total, middle.sum_quantizer)
    outs = model(FEATURES)
    assert torch.equal(outs[0], model.fpn_convs[0](operands[0] + up(total)))
    assert torch.equal(outs[1], model.fpn_convs[1](total))


def up(x):
    return nn.functional.interpolate(x, scale_factor=2)


def test_fpn_learns_and_is_copied():
    model = calibrated(quantized_neck(), FEATURES).train()
    sum(out.square().sum() for out in pickle.loads(pickle.dumps(model))(FEATURES)).backward()
    sum(out.square().sum() for out in model(FEATURES)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()
    model(FEATURES)[0].sum().backward()  # which every level above is a part of
    assert all(lateral.conv.weight.grad.any() for lateral in model.lateral_convs)


@pytest.mark.parametrize('exclude', ['lateral_convs', 'fpn_convs.0'])
def test_fpn_with_layers_in_float(exclude):
    model = build(quantized(neck(), **dict(QUANTIZATION, keep_float=[]), exclude=[exclude]))
    assert type(model).__name__ == 'FPN'
    assert not model.quantization_report.sums

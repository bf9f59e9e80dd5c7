"""Conversion of the two libraries' models: nothing changes but what is quantized."""

import copy
import pickle
import re

import pytest
import torch
from mmdet.models import FasterRCNN, SingleStageDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.structures import InstanceData
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import nn
from toy_models import W3A8, build, calibrated, classifier, quantized, resnet

from mmqnet.calibration import calibrate
from mmqnet.layers import QuantConv2d, QuantizedLayer, QuantLinear
from mmqnet.models import QuantizationConfig, convert
from mmqnet.quantizers import Mode, quantizers_of

# of models with many quantizers: k-means takes seconds for a few with 256 levels
W3A4 = dict(W3A8, activation=dict(levels='uint4'))


def upstream(path, **model):
    """A model of MMDetection's config files, smaller."""
    config = Config.fromfile(f'{MMDET}/{path}')
    config.merge_from_dict({f'model.{key}': value for key, value in model.items()})
    return config.model


MMDET = __import__('mmdet').__path__[0] + '/.mim/configs'
SMALL = {
    'backbone.depth': 18,
    'backbone.base_channels': 8,
    'backbone.stem_channels': 8,
    'backbone.init_cfg': None,
    'neck.in_channels': [8, 16, 32, 64],
    'neck.out_channels': 8,
}


def retinanet(**model):
    small = {**SMALL, 'bbox_head.in_channels': 8, 'bbox_head.feat_channels': 8,
             'bbox_head.num_classes': 3, 'bbox_head.stacked_convs': 2}  # fmt: skip
    return upstream('retinanet/retinanet_r50_fpn_1x_coco.py', **small, **model)


def faster_rcnn():
    small = {
        **SMALL,
        'rpn_head.in_channels': 8,
        'rpn_head.feat_channels': 8,
        'roi_head.bbox_roi_extractor.out_channels': 8,
        'roi_head.bbox_head.in_channels': 8,
        'roi_head.bbox_head.fc_out_channels': 16,
        'roi_head.bbox_head.num_classes': 3,
    }
    return upstream('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', **small)


def rtmdet():
    small = {
        'backbone.widen_factor': 0.125,
        'backbone.deepen_factor': 0.167,
        'backbone.init_cfg': None,
        'backbone.norm_cfg.type': 'BN',
        'neck.norm_cfg.type': 'BN',
        'bbox_head.norm_cfg.type': 'BN',
        'neck.in_channels': [32, 64, 128],
        'neck.out_channels': 16,
        'neck.num_csp_blocks': 1,
        'bbox_head.in_channels': 16,
        'bbox_head.feat_channels': 16,
        'bbox_head.num_classes': 3,
    }
    return upstream('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', **small)


def ssd():
    """SSD300 with the backbone VGG16 as it is: its channels cannot be changed."""
    return upstream('ssd/ssd300_coco.py', **{'backbone.init_cfg': None})


def detection_batch(size=64):
    sample = DetDataSample(metainfo=dict(
        img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size),
        batch_input_shape=(size, size), scale_factor=(1.0, 1.0), img_id=0,
    ))  # fmt: skip
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]), labels=torch.tensor([1])
    )
    return [sample, copy.deepcopy(sample)]


def float_and_quantized(config, scope='mmdet', **quantization):
    """A float model and a quantized one with its weights."""
    float_model = build(config, scope)
    model = build(quantized(config, **quantization), scope)
    model.load_state_dict(float_model.state_dict(), strict=True)
    return float_model, model


def set_modes(model, mode):
    for quantizer in quantizers_of(model).values():
        quantizer.set_mode(mode)


def total(losses):
    return sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if 'loss' in k)


class TestImageClassifier:
    def test_class_keys_and_outputs(self):
        float_model, model = float_and_quantized(classifier(), 'mmpretrain')
        assert type(model) is ImageClassifier
        assert set(float_model.state_dict()) < set(model.state_dict())
        added = set(model.state_dict()) - set(float_model.state_dict())
        assert all('_quantizer.' in key for key in added)
        x = torch.randn(2, 3, 32, 32)
        set_modes(model, Mode.FLOAT)
        assert torch.equal(model.eval()(x), float_model.eval()(x))

    def test_first_and_last_stay_in_float(self):
        model = build(quantized(classifier()), 'mmpretrain')
        assert type(model.backbone.conv1) is nn.Conv2d
        assert type(model.head.fc) is nn.Linear
        assert len([m for m in model.modules() if isinstance(m, QuantizedLayer)]) == 19

    def test_nothing_is_kept_on_request(self):
        model = build(quantized(classifier(), **W3A8, keep_float=()), 'mmpretrain')
        assert type(model.backbone.conv1) is QuantConv2d
        assert type(model.head.fc) is QuantLinear

    def test_trains(self):
        model = build(quantized(classifier()), 'mmpretrain')
        calibrated(model, torch.randn(2, 3, 32, 32)).train()
        samples = [DataSample().set_gt_label(i) for i in (0, 2)]
        total(model(torch.randn(2, 3, 32, 32), samples, mode='loss')).backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_init_weights_reaches_converted_layers(self):
        init = [dict(type='Constant', layer='Conv2d', val=0.25)]
        model = build(quantized(classifier(init_cfg=init)), 'mmpretrain')
        convs = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d)]
        assert len(convs) == 20
        assert all((conv.weight == 0.25).all() for conv in convs)

    @pytest.mark.parametrize('copy_of', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies(self, copy_of):
        model = build(quantized(classifier()), 'mmpretrain')
        calibrated(model, torch.randn(2, 3, 32, 32)).eval()
        x = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            out = model(x)
            clone = copy_of(model)
            assert torch.equal(clone(x), out)
            clone.backbone.layer2[0].downsample[0].weight.neg_()
            assert not torch.equal(clone(x), out)
            assert torch.equal(model(x), out)

    def test_checkpoints(self, tmp_path):
        source = calibrated(build(quantized(classifier()), 'mmpretrain'), torch.randn(2, 3, 32, 32))
        save_checkpoint(dict(state_dict=source.state_dict()), str(tmp_path / 'q.pth'))
        target = build(quantized(classifier()), 'mmpretrain')
        load_checkpoint(target, str(tmp_path / 'q.pth'), strict=True)
        x = torch.randn(2, 3, 32, 32)
        assert torch.equal(source.eval()(x), target.eval()(x))
        other = build(quantized(classifier(), weight=dict(levels='ternary')), 'mmpretrain')
        key = r'`backbone\.layer1\.0\.conv1\.weight_quantizer\.levels` holds 7 levels'
        with pytest.raises(ValueError, match=key):
            load_checkpoint(other, str(tmp_path / 'q.pth'))


class TestDetectors:
    def test_retinanet(self):
        float_model, model = float_and_quantized(retinanet())
        assert type(model) is type(float_model)
        assert isinstance(model, SingleStageDetector)
        assert set(float_model.state_dict()) < set(model.state_dict())
        assert type(model.bbox_head.retina_cls) is nn.Conv2d
        assert type(model.bbox_head.retina_reg) is nn.Conv2d
        assert type(model.bbox_head.cls_convs[0].conv) is QuantConv2d
        calibrated(model, torch.randn(2, 3, 64, 64)).eval()
        set_modes(model, Mode.FLOAT)
        x = torch.randn(2, 3, 64, 64)
        for out, expected in zip(model(x)[0], float_model.eval()(x)[0], strict=True):
            assert torch.equal(out, expected)
        set_modes(model, Mode.LEARNED)
        assert not torch.equal(model(x)[0][0], expected)

    def test_frozen_stages_norm_eval_and_their_quantizers(self):
        config = retinanet()
        assert config['backbone']['frozen_stages'] == 1
        assert config['backbone']['norm_eval']
        model = build(quantized(config))
        model.train()
        backbone = model.backbone
        assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
        assert not any(p.requires_grad for p in backbone.layer1.parameters())
        assert all(p.requires_grad for p in backbone.layer2[0].conv1.parameters())
        assert all(p.requires_grad for p in backbone.layer2[0].input_quantizer.parameters())
        assert not backbone.layer1[0].conv1.weight_quantizer.training
        calibrated(model, torch.randn(2, 3, 64, 64))
        assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
        total(model(torch.randn(2, 3, 64, 64), detection_batch(), mode='loss')).backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name

    def test_faster_rcnn_trains_and_predicts(self):
        model = build(quantized(faster_rcnn()))
        assert isinstance(model, FasterRCNN)
        head = model.roi_head.bbox_head
        assert type(head.shared_fcs[0]) is QuantLinear
        assert type(head.fc_cls) is type(head.fc_reg) is nn.Linear
        x, samples = torch.randn(2, 3, 64, 64), detection_batch()
        calibrate(model, [x], lambda batch: model(batch, samples, mode='tensor'))
        model.train()
        total(model(x, samples, mode='loss')).backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        with torch.no_grad():
            results = model.eval()(x, samples, mode='predict')
        assert len(results) == 2

    def test_shared_layers_stay_shared_and_are_quantized_once(self):
        model = build(quantized(rtmdet(), **W3A4))
        heads = model.bbox_head.cls_convs
        assert heads[0][0].conv is heads[1][0].conv is heads[2][0].conv
        assert type(heads[0][0].conv) is QuantConv2d
        names = [layer.name for layer in model.quantization_report.layers]
        assert len(names) == len(set(names))
        float_names = {n for n, _ in build(rtmdet()).named_parameters()}
        assert float_names < {n for n, _ in model.named_parameters()}
        calibrated(model, torch.randn(2, 3, 64, 64))
        model.train()
        total(model(torch.randn(2, 3, 64, 64), detection_batch(), mode='loss')).backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)

    def test_ssd_quantizes_its_backbone(self):
        model = build(quantized(ssd(), **W3A8, include=['backbone']))
        assert model.eval() is model
        quantized_layers = [n for n, m in model.named_modules() if isinstance(m, QuantizedLayer)]
        assert len(quantized_layers) == 14  # the convolutions of VGG16, fc6 and fc7 but the first
        assert all(name.startswith('backbone.') for name in quantized_layers)
        assert type(model.backbone.features[0]) is nn.Conv2d

    def test_sync_bn_of_a_config(self):
        config = quantized(resnet(norm_cfg=dict(type='SyncBN')), **W3A8)
        backbone = build(config)
        assert sum(isinstance(m, nn.SyncBatchNorm) for m in backbone.modules()) == 20
        assert backbone.layer1[0].conv1.weight_quantizer is not None

    def test_norm_layers_that_mmengine_converts(self):
        backbone = build(quantized(resnet(norm_cfg=dict(type='SyncBN')), **W3A8))
        backbone = revert_sync_batchnorm(backbone)
        backbone.eval()
        calibrated(backbone, torch.randn(2, 3, 32, 32))
        assert backbone(torch.randn(2, 3, 32, 32))[-1].isfinite().all()


class TestPatterns:
    def build(self, **quantization):
        return build(quantized(retinanet(), **W3A8, **quantization))

    def reasons(self, **quantization):
        report = self.build(**quantization).quantization_report
        return {layer.name: layer.reason for layer in report.layers}

    def test_include_and_exclude(self):
        reasons = self.reasons(include=['backbone', 'neck'], exclude=['*.conv2', 'neck.fpn_convs'])
        assert reasons['backbone.conv1'] == 'first layer'
        assert reasons['backbone.layer1.0.conv1'] == ''
        assert reasons['backbone.layer1.0.conv2'] == 'excluded'
        assert reasons['neck.lateral_convs.0.conv'] == ''
        assert reasons['neck.fpn_convs.0.conv'] == 'excluded'
        assert reasons['bbox_head.retina_cls'] == 'not included'

    def test_overrides(self):
        model = self.build(
            overrides={
                'backbone.layer4': dict(weight=dict(levels='int5'), activation=None),
                'bbox_head.cls_convs': dict(weight=None, activation=None),
            }
        )
        conv = model.backbone.layer4[0].conv2
        assert len(conv.weight_quantizer.levels) == 31
        assert conv.input_quantizer is None
        assert not hasattr(model.backbone.layer4[0], 'input_quantizer')
        assert len(model.backbone.layer3[0].conv2.weight_quantizer.levels) == 7
        reason = {layer.name: layer.reason for layer in model.quantization_report.layers}
        assert 'neither weight nor activation' in reason['bbox_head.cls_convs.0.conv']

    @pytest.mark.parametrize('key', ['include', 'exclude', 'overrides'])
    def test_a_pattern_without_a_layer(self, key):
        value = ['backbone.layr1'] if key != 'overrides' else {'backbone.layr1': dict(weight=None)}
        near = rf"`quantization\.{key}` .*'backbone\.layr1'.*Did you mean 'backbone\.layer1'"
        with pytest.raises(ValueError, match=near):
            self.build(**{key: value})

    @pytest.mark.parametrize(
        ('pattern', 'held_back', 'remedy'),
        [
            ('backbone.conv1', {}, r"`backbone\.conv1` stays .*'first layer'; leave 'first' out"),
            ('bbox_head.retina_*', {}, r"`bbox_head\.retina_cls` \(and 1 more\).*'last layer'"),
            ('neck', dict(exclude=['neck']), r"'excluded'; take it out of `quantization\.exclude`"),
            ('neck', dict(include=['backbone']), r"'not included'; add it to `quantization\.incl"),
        ],
    )
    def test_an_override_without_effect(self, pattern, held_back, remedy):
        override = {pattern: dict(weight=dict(levels='int8'))}
        with pytest.raises(ValueError, match=rf'the pattern .{re.escape(pattern)}.*{remedy}'):
            self.build(overrides=override, **held_back)
        override = {pattern: dict(weight=None, activation=None)}
        with pytest.raises(ValueError, match=rf'the pattern .{re.escape(pattern)}.*{remedy}'):
            self.build(overrides=override, **held_back)

    def test_an_override_that_a_later_one_hides(self):
        overrides = {'neck.fpn_convs': dict(weight=dict(levels='int8')),
                     'neck': dict(weight=dict(levels='int5'))}  # fmt: skip
        with pytest.raises(ValueError, match=r"'neck\.fpn_convs' .*takes its .* from 'neck'.*last"):
            self.build(overrides=overrides)

    def test_an_override_that_changes_nothing(self):
        overrides = {'neck': dict(weight=dict(levels=[-4, -2, -1, 0, 1, 2, 4]))}
        with pytest.raises(ValueError, match=r"'neck' .*has these quantizers without it"):
            self.build(overrides=overrides)

    def test_an_override_that_reaches_some_layers(self):
        override = {'bbox_head': dict(weight=dict(levels='int8'))}
        head = self.build(overrides=override).bbox_head
        assert len(head.cls_convs[0].conv.weight_quantizer.levels) == 255
        assert type(head.retina_cls) is nn.Conv2d

    def test_first_and_last_layers_have_bits_of_their_own(self):
        special = dict(weight=dict(levels='int8'), activation=dict(levels='uint4'))
        model = self.build(keep_float=[], first=special, last=special)
        layers = [model.backbone.conv1, model.bbox_head.retina_cls, model.bbox_head.retina_reg]
        for layer in layers:
            assert len(layer.weight_quantizer.levels) == 255
            assert len(layer.input_quantizer.levels) == 16
        assert len(model.neck.fpn_convs[0].conv.weight_quantizer.levels) == 7
        in_float = dict(weight=None, activation=None)
        model = self.build(keep_float=[], last=in_float)
        assert type(model.bbox_head.retina_cls) is nn.Conv2d

    def test_outputs_of_layers_and_of_the_modules_that_hold_them(self):
        eight_bits = dict(output=dict(levels='uint8', thresholds='uniform'))
        overrides = {'bbox_head.cls_convs': eight_bits, 'neck.lateral_convs.0': eight_bits}
        model = self.build(
            keep_float=['first'], last=eight_bits, overrides=overrides, sums=dict(levels='uint4')
        )
        calibrated(model, torch.randn(2, 3, 64, 64)).eval()
        head = model.bbox_head
        for module, is_signed in ((head.retina_cls, True), (head.cls_convs[0], False)):
            quantizer = module.output_quantizer
            assert (quantizer.levels[0] < 0) == is_signed  # not behind the ReLU of a ConvModule
            out = module(torch.randn(1, 8, 4, 4)) / quantizer.alpha
            torch.testing.assert_close(out, out.round())
        assert not hasattr(model.bbox_head.cls_convs[0].conv, 'output_quantizer')
        lateral, other, _ = model.neck.lateral_convs
        assert len(lateral.output_quantizer.levels) == 256  # an override stands before `sums`
        assert len(lateral._forward_hooks) == 1
        assert len(other.output_quantizer.levels) == 16
        table = model.quantization_report.table()
        row = next(line for line in table.splitlines() if 'bbox_head.retina_reg' in line)
        assert 'output levels' in table
        assert row.count('256: 0..255') == 2

    def test_outputs_of_a_layer_that_several_modules_hold(self):
        """RTMDet shares convolutions among its levels, each of which has its normalization."""
        overrides = {'bbox_head.cls_convs': dict(output=dict(levels='uint8'))}
        model = build(quantized(rtmdet(), **W3A4, overrides=overrides))
        towers = model.bbox_head.cls_convs
        assert len({id(tower[0].conv) for tower in towers}) == 1
        assert len({id(tower[0].output_quantizer) for tower in towers}) == 3
        calibrated(model, torch.randn(2, 3, 64, 64))

    @pytest.mark.parametrize(
        ('position', 'given', 'others', 'why'),
        [
            ('last', 'int8', dict(include=['backbone']), r"`bbox_head\.retina_cls` \(and 1 more\) "
             r"stays in float as 'not included'; .* or set `quantization\.last` to None"),
            ('first', 'int8', dict(exclude=['backbone.conv1']), r"`backbone\.conv1` .*'excluded'"),
            ('first', 'pm4', {}, r'`backbone\.conv1` has these quantizers without it; drop it'),
        ],
    )  # fmt: skip
    def test_a_position_without_effect(self, position, given, others, why):
        special = {position: dict(weight=dict(levels=given))}
        with pytest.raises(ValueError, match=rf'`quantization\.{position}` can have no .*: {why}'):
            self.build(keep_float=[], **special, **others)

    def test_nothing_left_to_quantize(self):
        with pytest.raises(ValueError, match=r'no layer of RetinaNet can be quantized: .*excluded'):
            self.build(exclude=['backbone', 'neck', 'bbox_head'])

    def test_a_model_without_layers(self):
        config = dict(type='mmqnet.QuantizedModel', architecture='DetDataPreprocessor',
                      quantization=W3A8)  # fmt: skip
        with pytest.raises(ValueError, match=r'no layer of DetDataPreprocessor.*it has no layers'):
            build(config)


@pytest.mark.parametrize('granularity', ['layer', 'model'])
def test_a_model_in_evaluation_stays_there(granularity):
    """As pretrained models come: it evaluates with hard functions at once."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.Conv2d(4, 2, 1)
    ).eval()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    model, x = Net().eval(), torch.randn(2, 3, 8, 8)
    weight = dict(levels='pm4', granularity=granularity)
    convert(model, QuantizationConfig.from_dict(dict(weight=weight, activation=None)))
    calibrate(model, [x], model)
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        before = model(x)
        assert torch.equal(model.eval()(x), before)


class TestMistakes:
    def test_architecture(self):
        config = dict(quantized(classifier()), architecture=dict(type='ImageClassifier'))
        with pytest.raises(TypeError, match=r'`architecture` should be the `type`.*but got \{'):
            build(config, 'mmpretrain')

    @pytest.mark.parametrize(
        ('key', 'message'),
        [
            ('quantizaton', "`model` has the unknown key 'quantizaton'.* mean 'quantization'"),
            ('architecure', "`model` has the unknown key 'architecure'.* mean 'architecture'"),
            ('arch', '`model.architecture` is missing: it should be the `type` of the float model'),
        ],
    )
    def test_missing_and_misspelt_keys(self, key, message):
        """In the stock tools too, and not as a TypeError of the detector's constructor."""
        config = quantized(classifier())
        right = 'quantization' if key[0] == 'q' else 'architecture'
        config[key] = config.pop(right)
        with pytest.raises(ValueError, match=message):
            build(config, 'mmpretrain')

    def test_unknown_key(self):
        config = quantized(classifier(), weigth=dict(levels='pm4'))
        with pytest.raises(ValueError, match=r"unknown key 'weigth'.*Did you mean 'weight'"):
            build(config, 'mmpretrain')

    def test_a_model_that_is_quantized_already(self):
        model = build(quantized(classifier()), 'mmpretrain')
        with pytest.raises(ValueError, match='has quantizers already'):
            convert(model, QuantizationConfig.from_dict(W3A8))

    def test_a_model_that_is_one_layer(self):
        config = QuantizationConfig.from_dict(dict(W3A8, keep_float=()))
        with pytest.raises(ValueError, match=r'Conv2d.*from_float'):
            convert(nn.Conv2d(1, 1, 1), config)

"""Divergence, teacher and distiller, on small models of both libraries."""

import copy
import math

import pytest
import torch
from families import DETECTORS, small_config
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import save_checkpoint
from toy_data import CLASSES
from toy_fixtures import configs, float_checkpoint
from toy_models import build, calibrated, classifier, quantized, resnet

from mmqnet.distillation import DistillationConfig, Distiller, build_teacher, divergence

__all__ = ['configs', 'float_checkpoint']


class TestDivergence:
    @pytest.mark.parametrize('temperature', [1.0, 4.0])
    @pytest.mark.parametrize('shape', [(2, 3, 4, 5), (2, 7), (2, 3, 7)])
    def test_is_the_formula(self, shape, temperature):
        student, teacher = torch.randn(2, *shape, dtype=torch.float64)
        rows = [
            x.reshape(6, 20) if len(shape) == 4 else x.reshape(-1, 7) for x in (student, teacher)
        ]
        expected = 0.0
        for s, t in zip(*rows, strict=True):
            p = torch.exp(t / temperature) / torch.exp(t / temperature).sum()
            q = torch.exp(s / temperature) / torch.exp(s / temperature).sum()
            expected += float((p * (p / q).log()).sum()) * temperature**2 / len(rows[0])
        assert math.isclose(divergence(student, teacher, temperature), expected, rel_tol=1e-5)

    def test_only_the_student_gets_a_gradient(self):
        student, teacher = torch.randn(2, 1, 3, 4, 4).requires_grad_().unbind()
        found = torch.autograd.grad(divergence(student, teacher), (student, teacher),
                                    allow_unused=True)  # fmt: skip
        assert found[0].abs().sum() > 0
        assert found[1] is None

    def test_low_precision_is_compared_in_float32(self):
        maps = torch.randn(1, 2, 4, 4)
        assert divergence(maps.bfloat16(), maps).dtype == torch.float32


def model_of(configs, name='quantized', **changes):
    config = Config.fromfile(configs / f'{name}.py')
    config.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    return config.model


def build_of(config, path, classes=CLASSES):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return build_teacher(config, path, classes)


class TestTeacher:
    def test_is_the_float_model(self, configs, float_checkpoint):
        config = model_of(configs)
        before = copy.deepcopy(config), torch.random.get_rng_state()
        teacher = build_of(config, float_checkpoint)
        assert config == before[0]
        assert torch.equal(torch.random.get_rng_state(), before[1])
        assert type(teacher).__name__ == 'SingleStageDetector'
        assert not any(module.training for module in teacher.modules())
        assert not any(parameter.requires_grad for parameter in teacher.parameters())
        saved = torch.load(float_checkpoint, weights_only=False)['state_dict']
        assert teacher.state_dict().keys() == saved.keys()
        assert all(torch.equal(value, saved[key]) for key, value in teacher.state_dict().items())

    def test_synchronized_statistics_are_its_own(self, configs, float_checkpoint):
        config = model_of(configs, **{'backbone.norm_cfg': dict(type='SyncBN')})
        kinds = {type(m).__name__ for m in build_of(config, float_checkpoint).modules()}
        assert 'SyncBatchNorm' not in kinds

    def test_missing_file(self, configs):
        with pytest.raises(FileNotFoundError, match=r"^the teacher 'no/where.pth' does not exist$"):
            build_of(model_of(configs), 'no/where.pth')

    @pytest.mark.parametrize(
        'changes',
        [
            {'backbone.stem_channels': 16},
            {'backbone.depth': 34},
            {'bbox_head.num_classes': 4},
        ],
    )
    def test_another_architecture(self, configs, float_checkpoint, changes):
        message = r'^the teacher should be a checkpoint of the float SingleStageDetector of this'
        with pytest.raises(ValueError, match=message) as error:
            build_of(model_of(configs, **changes), float_checkpoint)
        assert '\n' not in str(error.value)

    def test_a_deeper_model(self, configs, tmp_path):
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = build(model_of(configs, 'float', **{'backbone.depth': 34}))
        path = str(tmp_path / 'deeper.pth')
        save_checkpoint(dict(state_dict=model.state_dict()), path)
        message = r'^the teacher should be .* holds `backbone\..*, for which this one has no place$'
        with pytest.raises(ValueError, match=message):
            build_of(model_of(configs), path)

    def test_what_else_a_checkpoint_holds(self, configs, float_checkpoint, tmp_path):
        checkpoint = torch.load(float_checkpoint, weights_only=False)
        checkpoint['state_dict'].update(steps=3, scale=torch.ones(2))
        path = str(tmp_path / 'more.pth')
        save_checkpoint(checkpoint, path)
        assert 'steps' not in build_of(model_of(configs), path).state_dict()

    def test_no_checkpoint(self, configs, tmp_path):
        path = tmp_path / 'teacher.json'
        path.write_text('{}')
        with pytest.raises(ValueError, match=r'^the teacher should be .*teacher\.json') as error:
            build_of(model_of(configs), str(path))
        assert '\n' not in str(error.value)

    def test_a_quantized_model(self, configs, tmp_path):
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = build(model_of(configs))
        path = str(tmp_path / 'quantized.pth')
        save_checkpoint(dict(state_dict=model.state_dict()), path)
        with pytest.raises(ValueError, match=r'is of a quantized model and holds `backbone'):
            build_of(model_of(configs), path)

    def test_other_classes(self, configs, float_checkpoint, tmp_path):
        checkpoint = torch.load(float_checkpoint, weights_only=False)
        checkpoint['meta'] = dict(dataset_meta=dict(classes=['cat', 'dog', 'cow']))
        path = str(tmp_path / 'animals.pth')
        save_checkpoint(checkpoint, path)
        message = r"3 classes of .* 'red', 'green', 'blue', but knows 3: 'cat', 'dog', 'cow'$"
        with pytest.raises(ValueError, match=message):
            build_of(model_of(configs), path)
        build_of(model_of(configs), path, classes=None)


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(features='neck'), TypeError, r"`distillation\.features` should be a list of names"),
        (dict(features=[1]), TypeError, r'`distillation\.features` should be a list of names'),
        (dict(features=[]), ValueError, r'set `distillation\.feature_weight=0`'),
        (dict(feature_weight=-1), ValueError, r'`distillation\.feature_weight` should be not neg'),
        (dict(output_weight='1'), TypeError, r'`distillation\.output_weight` should be a number'),
        (dict(temperature=0), ValueError, r'`distillation\.temperature` should be positive'),
        (dict(feature_weight=0, output_weight=0), ValueError, r'nothing is left to learn'),
        (dict(features=['neck'], feature_weight=0), ValueError, r'features` has no effect with'),
    ],
)  # fmt: skip
def test_wrong_settings(settings, error, message):
    with pytest.raises(error, match=message):
        DistillationConfig(**settings)


FCOS = dict(
    type='FCOS',
    backbone=resnet(norm_eval=True),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, start_level=1, num_outs=3),
    bbox_head=dict(
        type='FCOSHead', num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1,
        strides=(8, 16, 32), norm_cfg=dict(type='GN', num_groups=4), norm_on_bbox=True,
        regress_ranges=((-1, 64), (64, 128), (128, 1e8))),
)  # fmt: skip


def learn(model, scope='mmdet'):
    """Return the losses of two random pictures."""
    pictures = torch.randn(2, 3, 64, 64)
    if scope == 'mmdet':
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        truth = InstanceData(bboxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([1]))
        size = dict(img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64))
        samples = [DetDataSample(metainfo=size, gt_instances=truth) for _ in pictures]
    else:
        from mmpretrain.structures import DataSample

        samples = [DataSample().set_gt_label(1) for _ in pictures]
    return model(pictures, samples, mode='loss')


def of_distillation(losses):
    return {k.split('/')[1]: float(v) for k, v in losses.items() if k.startswith('distillation/')}


class TestDistiller:
    @pytest.fixture(scope='class')
    def fcos(self):
        return build(FCOS)

    @pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
    def test_nothing_is_left_to_learn_from_oneself(self, scope, fcos):
        """FCOS scales its boxes by the strides in evaluation only, where the teacher is."""
        student = copy.deepcopy(fcos)
        if scope == 'mmpretrain':
            student = build(classifier(norm_eval=True), scope)
        teacher = copy.deepcopy(student)
        teacher.eval()
        distiller = Distiller(student, teacher, DistillationConfig())
        student.train()
        before = student.state_dict().keys(), set(student.parameters())
        distiller.attach()
        losses = of_distillation(learn(student, scope))
        assert losses.keys() == {'loss_features', 'loss_outputs'}
        assert all(abs(loss) < 1e-5 for loss in losses.values())
        assert (student.state_dict().keys(), set(student.parameters())) == before
        distiller.remove()
        assert not of_distillation(learn(student, scope))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in teacher.modules())

    @pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
    def test_quantized_model_learns_by_the_weights(self, scope, fcos):
        float_model = FCOS if scope == 'mmdet' else classifier(norm_eval=True)
        student = calibrated(build(quantized(float_model), scope), torch.randn(2, 3, 64, 64))
        teacher = build(float_model, scope)
        teacher.eval()
        losses = []
        for weights in ((10, 0), (0, 10), (20, 10)):
            config = DistillationConfig(feature_weight=weights[0], output_weight=weights[1])
            distiller = Distiller(student, teacher, config)
            student.train()
            distiller.attach()
            torch.manual_seed(1)
            losses.append(of_distillation(learn(student, scope)))
            distiller.remove()
        features, outputs, both = losses
        assert features['loss_features'] > 1e-4
        assert outputs['loss_outputs'] > 1e-4
        assert both['loss_features'] == pytest.approx(2 * features['loss_features'], rel=1e-4)
        assert both['loss_outputs'] == pytest.approx(outputs['loss_outputs'], rel=1e-4)

    @pytest.mark.parametrize(
        ('name', 'settings', 'learned'),
        [
            ('Faster R-CNN', {}, {'loss_features', 'loss_outputs'}),  # of the first stage
            ('DETR', dict(output_weight=0), {'loss_features'}),
        ],
    )
    def test_other_kinds_of_detectors(self, name, settings, learned):
        family = next(family for family in DETECTORS if family.name == name)
        student = build(small_config(family).model)
        teacher = copy.deepcopy(student)
        teacher.eval()
        Distiller(student, teacher, DistillationConfig(**settings)).attach()
        student.train()
        losses = of_distillation(learn(student))
        assert losses.keys() == learned
        assert all(abs(loss) < 1e-5 for loss in losses.values())

    def test_named_features_of_several_calls(self, fcos):
        student, teacher = copy.deepcopy(fcos), copy.deepcopy(fcos)
        teacher.eval()
        names = ['backbone.layer4', 'bbox_head.cls_convs.0']
        distiller = Distiller(student, teacher, DistillationConfig(names, output_weight=1))
        distiller.attach()
        student.train()
        assert of_distillation(learn(student))['loss_features'] < 1e-5
        # each of them counts, at each of its calls
        for name in ('backbone.layer4.0.downsample.0.weight', 'bbox_head.cls_convs.0.conv.weight'):
            weight = teacher.get_parameter(name)
            before = weight.detach().clone()
            torch.nn.init.normal_(weight)
            losses = learn(student)
            assert losses['distillation/loss_features'] > 1e-3, name
            weight.data.copy_(before)
        student.zero_grad()
        losses['distillation/loss_features'].backward()
        levels = student.neck.fpn_convs
        assert all(level.conv.weight.grad.any() for level in levels)

    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            (dict(features=['neck.lateral_conv']), r"FCOS does not have\. Did you mean 'neck"),
            (dict(features=['nock']), r"names 'nock', .*Did you mean 'neck'"),
            (dict(features=['data_preprocessor']), r'modules of backbone, neck, bbox_head'),
        ],
    )  # fmt: skip
    def test_wrong_feature(self, fcos, settings, message):
        with pytest.raises(ValueError, match=message):
            Distiller(fcos, fcos, DistillationConfig(**settings))

    def test_quantizer_is_no_feature(self, fcos):
        name = 'neck.lateral_convs.0.conv.weight_quantizer'
        student = build(quantized(FCOS))
        assert student.get_submodule(name) is not None
        with pytest.raises(ValueError, match=r"Did you mean 'neck\.lateral_convs\.0\.conv'"):
            Distiller(student, fcos, DistillationConfig([name]))

    def test_model_without_features(self):
        with pytest.raises(ValueError, match='Conv2d has no `extract_feat`'):
            Distiller(torch.nn.Conv2d(1, 1, 1), torch.nn.Identity(), DistillationConfig())

    def test_model_without_a_head(self):
        model = build({**classifier(), 'head': None}, 'mmpretrain')
        with pytest.raises(ValueError, match=r'set `distillation\.output_weight=0`'):
            Distiller(model, model, DistillationConfig())

    def test_feature_without_gradient(self, fcos):
        student, teacher = copy.deepcopy(fcos), copy.deepcopy(fcos)
        student.backbone.requires_grad_(False)
        distiller = Distiller(student, teacher, DistillationConfig(['backbone.layer1']))
        distiller.attach()
        student.train()
        with pytest.raises(
            ValueError, match=r'`backbone.layer1` passes no gradient .*with_cp=True'
        ):
            learn(student)

    def test_other_shapes(self, fcos):
        student, teacher = copy.deepcopy(fcos), copy.deepcopy(fcos)
        teacher.neck = torch.nn.Identity()
        config = DistillationConfig(output_weight=0)
        distiller = Distiller(student, teacher, config)
        distiller.attach()
        student.train()
        with pytest.raises(ValueError, match=r'`neck` gives the student tensors of the shapes '):
            learn(student)

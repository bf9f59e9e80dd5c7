"""Mistakes that cost hours: told in one line when the config is read, or hinted at in the log."""

import argparse
import json
import logging
import re
import shutil

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from synthetic_data import write_voc
from toy_data import make_runner

from mmqnet.command_line import add_arguments, check_hooks, load_config, log_hints

CALIBRATION = dict(type='mmqnet.CalibrationHook')
LOADERS = ('train_dataloader', 'val_dataloader')


@pytest.fixture(autouse=True)
def _local_rank(monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    monkeypatch.setenv('LOCAL_RANK', '0')  # set, so that it is removed again


def read(path, *settings):
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_arguments(parser)
    options = ['--cfg-options', *settings] if settings else []
    return load_config(parser.parse_args([str(path), *options]), LOADERS)


def refused(path, *settings):
    with pytest.raises(ValueError) as caught:
        read(path, *settings)
    assert '\n' not in str(caught.value)
    return str(caught.value)


class TestClasses:
    def test_right_ones(self, configs):
        assert read(configs / 'quantized.py').work_dir == 'work_dirs/quantized'

    def test_another_spelling_names_both_lists(self, configs, tmp_path):
        """As 'Tree' for 'tree'; without the check the data set is empty, or labels are shifted."""
        path = tmp_path / 'c.py'
        path.write_text(
            f'_base_ = {str(configs / "float.py")!r}\n'
            'train_dataloader = dict(dataset=dict(dataset=dict(metainfo=dict(\n'
            "    classes=('Red', 'green', 'blue')))))\n"
        )
        assert refused(path) == (
            "the annotations of `train_dataloader.dataset.dataset` lack ('Red') of the classes "
            "('Red', 'green', 'blue'): they have ('red', 'green', 'blue'). Did you mean 'red'?"
        )

    @pytest.mark.parametrize(
        ('content', 'error'),
        [
            ('{"categories": [{"name": "red", "keypoints": ["a"]}, {"na', 'JSONDecodeError: '),
            ('[{"categories": [{"name": "red", "keypoints": ["a"]}]}]', 'AttributeError: '),
        ],
    )
    def test_damaged_annotations(self, configs, tmp_path, content, error):
        path = tmp_path / 'train.json'
        path.write_text(content)
        where = 'train_dataloader.dataset.dataset'
        found = refused(configs / 'float.py', f'{where}.ann_file={path}')
        assert found.startswith(f'the annotations of `{where}` cannot be read: {error}')

    def test_categories_of_key_points(self, configs, tmp_path):
        """Their lists make the short way of reading fail."""
        annotations = json.loads((configs.parent / 'data' / 'val.json').read_text())
        for item in annotations['categories']:
            item['skeleton'] = [[1, 2]]
        file = tmp_path / 'val.json'
        file.write_text(json.dumps(annotations))
        read(configs / 'float.py', f'val_dataloader.dataset.ann_file={file}')
        annotations['categories'].pop()
        file.write_text(json.dumps(annotations))
        message = refused(configs / 'float.py', f'val_dataloader.dataset.ann_file={file}')
        assert "`val_dataloader.dataset` lack ('blue') of the classes" in message

    def test_names_of_voc(self, tmp_path):
        write_voc(tmp_path / 'VOC', {('VOC2007', 'trainval'): 2}, ('RBC', 'WBC'))
        path = tmp_path / 'c.py'
        text = (
            "default_scope = 'mmdet'\n"
            "train_dataloader = dict(dataset=dict(type='VOCDataset', metainfo=dict(classes={}),\n"
            f'    data_root={str(tmp_path / "VOC")!r},\n'
            "    data_prefix=dict(sub_data_root='VOC2007/'),\n"
            "    ann_file='VOC2007/ImageSets/Main/trainval.txt'))\n"
        )
        path.write_text(text.format("('RBC', 'WBC', 'none of these')"))
        read(path)
        path.write_text(text.format("('rbc', 'wbc')"))
        assert re.search(r"lack \('rbc', 'wbc'\) .*they have \('.BC'", refused(path))

    @pytest.mark.parametrize('number', [2, 80])
    def test_number_of_classes_of_a_detector(self, configs, number):
        message = refused(configs / 'float.py', f'model.bbox_head.num_classes={number}')
        assert message == (
            '`model.bbox_head.num_classes` should be 3, as `train_dataloader.dataset.dataset` has '
            f"the classes ('red', 'green', 'blue'), but got {number}"
        )

    def test_number_of_classes_of_a_classifier(self, tmp_path):
        """From the folders; more than there are may be meant."""
        for name in 'abc':
            (tmp_path / 'train' / name).mkdir(parents=True)
        path = tmp_path / 'c.py'
        path.write_text(
            "default_scope = 'mmpretrain'\n"
            "model = dict(type='ImageClassifier', head=dict(num_classes=1000))\n"
            'train_dataloader = dict(num_workers=0, dataset=dict(\n'
            f"    type='CustomDataset', data_root={str(tmp_path)!r}, data_prefix='train'))\n"
        )
        read(path)
        message = refused(path, 'model.head.num_classes=2')
        assert message.startswith('`model.head.num_classes` should be 3, as `train_dataloader.dat')


class TestModel:
    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            ({'quantization': None}, '`model.quantization` is missing: it should be a dict such'),
            ({'architecture': None}, '`model.architecture` is missing: it should be the `type` of'),
            ({'quantizaton': {}}, "unknown key 'quantizaton'. Did you mean 'quantization'?"),
            ({'type': 'RetinaNet'}, "`model.type` should be 'mmqnet.QuantizedModel', and `model.a"),
        ],
    )
    def test_keys(self, tmp_path, change, message):
        model = dict(type='mmqnet.QuantizedModel', architecture='RetinaNet', quantization={})
        model = {k: v for k, v in {**model, **change}.items() if v is not None}
        Config(dict(model=model)).dump(tmp_path / 'c.py')
        assert message in refused(tmp_path / 'c.py')


class TestHooks:
    def check(self, **hooks):
        check_hooks(Config(dict(model=dict(type='mmqnet.QuantizedModel'), **hooks)))

    def test_right_ones(self):
        self.check(default_hooks=dict(calibration=CALIBRATION), custom_hooks=[])
        self.check(custom_hooks=[dict(CALIBRATION), dict(type='EMAHook')])
        check_hooks(Config(dict(model=dict(type='RetinaNet'))))

    @pytest.mark.parametrize('place', ['default_hooks', 'custom_hooks'])
    def test_teacher_that_does_not_exist(self, place):
        hooks = dict(default_hooks=dict(calibration=CALIBRATION), custom_hooks=[])
        teacher = dict(type='mmqnet.DistillationHook', teacher='no/where.pth')
        hooks[place] = [teacher] if place == 'custom_hooks' else dict(distillation=teacher)
        with pytest.raises(FileNotFoundError, match=r"^the teacher 'no/where.pth' does not exist$"):
            self.check(**hooks)

    def test_teacher_that_is_a_folder(self, tmp_path):
        teacher = dict(type='mmqnet.DistillationHook', teacher=str(tmp_path))
        with pytest.raises(ValueError, match=r"^the teacher '.*' should be a file, but is a fol"):
            self.check(default_hooks=dict(calibration=CALIBRATION, distillation=teacher))

    @pytest.mark.parametrize(
        ('hook', 'message'),
        [
            (
                dict(type='mmqnet.DistilationHook', teacher='float.pth'),
                r"is 'mmqnet\.DistilationHook', which is no hook\. Did you mean 'mmqnet\.Distill",
            ),
            (
                dict(type='mmqnet.DistillationHook', teacher='float.pth', feature=['neck']),
                r"` has the unknown key 'feature'; known keys are .*\. Did you mean 'features'\?",
            ),
        ],
    )
    def test_misspelt_hooks_and_arguments(self, hook, message):
        with pytest.raises(ValueError, match=rf'^`default_hooks\.distillation.*{message}'):
            self.check(default_hooks=dict(calibration=CALIBRATION, distillation=hook))
        with pytest.raises(ValueError, match=rf'^`custom_hooks\[1\].*{message}'):
            self.check(custom_hooks=[dict(CALIBRATION), hook])

    def test_without_calibration(self):
        message = r'`model` is quantized, but no hook calibrates it: add `default_hooks = dict\('
        with pytest.raises(ValueError, match=message):
            self.check(default_hooks=dict(calibration=None))

    def test_custom_hooks_as_a_dict(self):
        with pytest.raises(ValueError, match=r"should be a list, but got a dict with \['calibra"):
            self.check(custom_hooks=dict(calibration=CALIBRATION))

    @pytest.mark.parametrize(
        ('default', 'custom', 'name'),
        [
            (dict(calibration=CALIBRATION), CALIBRATION, 'calibration'),
            (dict(checkpoint=dict(type='CheckpointHook')), 'CheckpointHook', 'checkpoint'),
            ({}, 'CheckpointHook', 'checkpoint'),  # MMEngine's own
        ],
    )
    def test_hooks_that_run_twice(self, default, custom, name):
        if isinstance(custom, str):
            custom = dict(type=custom, _scope_='mmqnet')
        message = rf'`custom_hooks\[1\]` and `default_hooks\.{name}` would both run'
        with pytest.raises(ValueError, match=message):
            self.check(default_hooks=default, custom_hooks=[dict(type='EMAHook'), custom])


@pytest.fixture
def hints(configs, float_checkpoint, tmp_path):
    """Returns the lines that are logged for the quantized config with some settings."""

    def log(**settings):
        runner = make_runner(configs / 'quantized.py', tmp_path, **settings)
        lines = []
        handler = logging.Handler(logging.INFO)
        handler.emit = lambda record: lines.append(record.getMessage())
        logger = MMLogger.get_current_instance()
        logger.addHandler(handler)
        log_hints(runner)
        logger.removeHandler(handler)
        return lines

    return log


class TestHints:
    def test_rate_of_the_float_training(self, hints, configs, float_checkpoint):
        (line,) = hints(load_from=float_checkpoint)
        assert line.startswith(
            'The peak of the learning rate, 0.001, is that of the float training'
        )
        assert repr(str(configs / 'float.py')) in line

    @pytest.mark.parametrize(
        'settings',
        [
            dict(load_from=None),
            dict(resume=True),
            dict(optim_wrapper__optimizer__lr=1e-4),
            dict(optim_wrapper__paramwise_cfg=dict(quantized=dict(lr=1e-5))),
            dict(param_scheduler=[dict(type='OneCycleLR', eta_max=1e-4, total_steps=3)]),
        ],
        ids=str,
    )
    def test_other_rates(self, hints, float_checkpoint, settings):
        if 'optim_wrapper__paramwise_cfg' in settings:
            settings['optim_wrapper__constructor'] = 'mmqnet.QuantOptimWrapperConstructor'
        assert hints(**{'load_from': float_checkpoint, **settings}) == []

    def test_batch_normalization_of_single_pictures(self, hints):
        (line,) = hints(train_dataloader__batch_size=1)
        assert re.match(
            r"\d+ batch normalizations, such as 'backbone\.bn1', would learn from", line
        )
        norm_eval = dict(model__backbone__norm_eval=True)
        assert hints(train_dataloader__batch_size=1, **norm_eval) == []

    def test_decay_of_scales_without_its_constructor(self, hints):
        settings = dict(optim_wrapper__paramwise_cfg=dict(scale=dict(weight_decay=5e-4)))
        (line,) = hints(**settings)
        assert line.startswith('`optim_wrapper.paramwise_cfg.scale` has no effect without')
        settings['optim_wrapper__constructor'] = 'mmqnet.QuantOptimWrapperConstructor'
        assert hints(**settings) == []


def test_a_recipe_of_another_package_is_built_without_its_scope(configs, tmp_path):
    """MMEngine notes the scope of `mmqnet::` bases in dicts with a `type`, as of LSQ."""
    shutil.copy(configs / 'quantized.py', tmp_path)
    shutil.copy(configs / 'float.py', tmp_path)
    levels = dict(type='LSQ', levels='int4', _scope_='mmqnet')
    runner = make_runner(
        tmp_path / 'quantized.py', tmp_path / 'run', model__quantization__weight=levels
    )
    assert len(runner.model.quantization_report.quantized) == 19

"""tools/ptq.py with real runners: on a detector and on a classifier, and what it refuses."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import save_checkpoint
from synthetic_data import write_imagenet
from toy_data import make_runner
from toy_models import build, classifier, quantized

from mmqnet.calibration import reestimate_on_samples
from mmqnet.engine.hooks import CalibrationHook
from mmqnet.quantizers import quantizers_of

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture(scope='module')
def ptq():
    """Runs a tool in this process; the metrics that it has left in its work dir."""

    def run(config, checkpoint, work_dir, *options, tool='ptq'):
        spec = importlib.util.spec_from_file_location(tool, TOOLS / f'{tool}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        name = f'experiment_name={work_dir.parent.name}_{work_dir.name}'
        arguments = [str(a) for a in (config, checkpoint, '--work-dir', work_dir, *options)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', [f'{tool}.py', *with_setting(arguments, name)])
            patch.setenv('LOCAL_RANK', '0')
            module.main()
        (path,) = (p for p in work_dir.glob('*/*.json'))
        metrics = json.loads(path.read_text())
        return {name: value for name, value in metrics.items() if 'time' not in name}

    return run


def with_setting(arguments, setting):
    """Add to `--cfg-options`, of which the last one counts."""
    if '--cfg-options' not in arguments:
        arguments = [*arguments, '--cfg-options']
    return [*arguments, setting]


def state_of(path):
    return torch.load(path, weights_only=False)['state_dict']


@pytest.fixture(scope='module')
def detector(ptq, configs, float_checkpoint, tmp_path_factory):
    """Metrics and checkpoint of the toy detector, quantized with 4 training samples."""
    folder = tmp_path_factory.mktemp('ptq')
    options = ['--num-samples', 4, '--reestimate-bn', 4, '--out', folder / 'out' / 'q.pth']
    metrics = ptq(configs / 'quantized.py', float_checkpoint, folder / 'run', *options)
    return metrics, folder / 'out' / 'q.pth'


def test_what_is_saved_is_what_a_training_starts_from(
    detector, configs, float_checkpoint, tmp_path
):
    runner = make_runner(configs / 'quantized.py', tmp_path / 'run', load_from=float_checkpoint)
    runner.load_or_resume()
    CalibrationHook(num_samples=4).before_train(runner)
    reestimate_on_samples(runner.model, runner.train_dataloader, 4)
    expected, found = runner.model.state_dict(), state_of(detector[1])
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    assert [path.name for path in detector[1].parent.iterdir()] == ['q.pth']  # nothing aside


def test_batch_statistics_change_only_when_asked_for(ptq, detector, configs, float_checkpoint):
    folder = detector[1].parent.parent
    ptq(configs / 'quantized.py', float_checkpoint, folder / 'plain', '--num-samples', 4)
    found, given = state_of(folder / 'plain' / 'ptq.pth'), state_of(float_checkpoint)
    assert all(torch.equal(found[key], value) for key, value in given.items())
    changed = {k for k, v in given.items() if not torch.equal(v, state_of(detector[1])[k])}
    assert changed
    assert all(key.endswith(('running_mean', 'running_var')) for key in changed)


def test_outputs_are_matched_when_asked_for(ptq, configs, float_checkpoint, tmp_path):
    text = (configs / 'quantized.py').read_text()
    config = configs / 'quantized_neck.py'
    config.write_text(text.replace("['backbone']", "['neck']"))
    given = state_of(float_checkpoint)
    matching = configs / 'matching_neck.py'
    hook = "dict(type='mmqnet.CalibrationHook', match_outputs=True)"
    matching.write_text(
        f"_base_ = './quantized_neck.py'\ndefault_hooks = dict(calibration={hook})\n"
    )
    changed = []
    for name, path, options in (
        ('plain', config, []),
        ('not', matching, ['--no-match-outputs']),
        ('matched', config, ['--match-outputs']),
        ('as_config', matching, []),
    ):
        ptq(path, float_checkpoint, tmp_path / name, '--num-samples', 4, *options)
        found = state_of(tmp_path / name / 'ptq.pth')
        changed.append({key for key, value in given.items() if not torch.equal(found[key], value)})
    layers = [f'neck.extra_layers.0.{i}.conv' for i in (0, 1)]
    of_layers = {f'{name}.{key}' for name in layers for key in ('weight', 'bias')}
    assert changed == [set(), set(), of_layers, of_layers]


def test_the_seed_is_that_of_the_config(ptq, configs, float_checkpoint, tmp_path):
    options = ['--num-samples', 2, '--cfg-options', 'default_hooks.calibration.seed=4']
    ptq(configs / 'quantized.py', float_checkpoint, tmp_path / 'a', *options)
    runner = make_runner(configs / 'quantized.py', tmp_path / 'b', load_from=float_checkpoint)
    runner.load_or_resume()
    CalibrationHook(num_samples=2, seed=4).before_train(runner)
    found = state_of(tmp_path / 'a' / 'ptq.pth')
    assert all(torch.equal(value, found[k]) for k, value in runner.model.state_dict().items())


def test_the_float_checkpoint_is_not_replaced(ptq, configs, float_checkpoint, tmp_path):
    mine = tmp_path / 'mine.pth'
    mine.write_bytes(Path(float_checkpoint).read_bytes())
    with pytest.raises(ValueError, match=r'--out should be another file than the float checkp'):
        ptq(configs / 'quantized.py', mine, tmp_path / 'run', '--out', mine)
    assert mine.read_bytes() == Path(float_checkpoint).read_bytes()


def test_outputs_that_cannot_be_matched(ptq, configs, float_checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r'no quantized layer of \w+ has a bias'):
        ptq(configs / 'quantized.py', float_checkpoint, tmp_path / 'run', '--match-outputs')


def test_the_test_tool_finds_the_same(ptq, detector, configs, tmp_path):
    assert any('bbox_mAP' in name for name in detector[0])
    metrics = ptq(configs / 'quantized.py', detector[1], tmp_path / 'run', tool='test')
    assert metrics == detector[0]


def test_a_training_starts_from_it_without_calibration(detector, configs, tmp_path):
    runner = make_runner(configs / 'quantized.py', tmp_path / 'run', load_from=str(detector[1]))
    runner.load_or_resume()
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    CalibrationHook(num_samples=2).before_train(runner)
    assert all(q.is_calibrated for q in quantizers_of(runner.model).values())
    assert all(torch.equal(v, before[k]) for k, v in runner.model.state_dict().items())


def test_init_detector_takes_it(detector, configs):
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(str(configs / 'quantized.py'), str(detector[1]), device='cpu')
    assert model.dataset_meta['classes'] == ('red', 'green', 'blue')
    picture = next(configs.parent.glob('data/val/*.png'))
    assert inference_detector(model, str(picture)).pred_instances.scores.isfinite().all()


@pytest.fixture(scope='module')
def classifier_config(tmp_path_factory):
    """Config and float checkpoint of a small classifier of MMPretrain."""
    root = tmp_path_factory.mktemp('classifier')
    write_imagenet(root / 'data', 6, 3)
    loaders = {}
    for split in ('train', 'val'):
        dataset = dict(
            type='CustomDataset',
            data_root=str(root / 'data'),
            ann_file=f'meta/{split}.txt',
            data_prefix=split,
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
        )
        sampler = dict(type='DefaultSampler', shuffle=False)
        loaders[split] = dict(batch_size=2, num_workers=0, dataset=dataset, sampler=sampler)
    config = Config(
        dict(
            default_scope='mmpretrain',
            model=quantized(classifier()),
            train_dataloader=loaders['train'],
            test_dataloader=loaders['val'],
            test_evaluator=dict(type='Accuracy', topk=(1,)),
            test_cfg=dict(),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        )
    )
    config.dump(root / 'quantized.py')
    model = build(classifier(), 'mmpretrain')
    save_checkpoint(dict(state_dict=model.state_dict()), str(root / 'float.pth'))
    return root


def test_classifier(ptq, classifier_config, tmp_path):
    files = classifier_config / 'quantized.py', classifier_config / 'float.pth'
    metrics = ptq(*files, tmp_path / 'run', '--reestimate-bn')
    assert 'accuracy/top1' in metrics
    saved = tmp_path / 'run' / 'ptq.pth'
    assert all(value for key, value in state_of(saved).items() if key.endswith('calibrated'))
    assert ptq(files[0], saved, tmp_path / 'test', tool='test') == metrics
    options = ['--show-dir', 'pictures', '--cfg-options', 'visualizer.type=UniversalVisualizer']
    options.append('default_hooks.visualization.type=VisualizationHook')
    ptq(files[0], saved, tmp_path / 'shown', *options, tool='test')
    assert len(list((tmp_path / 'shown' / 'pictures').iterdir())) == 3  # all


@pytest.mark.parametrize(
    ('config', 'checkpoint', 'options', 'error', 'message'),
    [
        ('quantized', '{q}', [], ValueError, r'is of a quantized model, which tools/test\.py ev'),
        ('float', '{f}', [], ValueError, r"`model\.type` should be 'mmqnet\.QuantizedModel'"),
        ('quantized', '{c}', [], ValueError, r'holds no `backbone\..*`.*is it of another model'),
        ('quantized', '{h}', [], ValueError, r'holds no `bbox_head\.\S+`, .* \(12 of \d+ param'),
        ('quantized', '{d}', [], ValueError, r'holds `backbone\.layer1\.2\S+`, for which'),
        ('quantized', 'no.pth', [], FileNotFoundError, r"checkpoint 'no\.pth' does not exist"),
        ('frozen', '{f}', ['--reestimate-bn'], ValueError, r'all 20 batch norm.* are frozen'),
        ('untested', '{f}', [], ValueError, r"`test_cfg` should be in '.*/untested\.py': `train"),
        ('gone', '{f}', [], FileNotFoundError, r"`train_.*ann_file`: '/nowhere/train\.json'"),
    ],
)
def test_what_is_refused(
    ptq, configs, detector, float_checkpoint, tmp_path, config, checkpoint, options, error, message
):
    other = tmp_path / 'other.pth'
    save_checkpoint(dict(state_dict=dict(weight=torch.ones(3))), str(other))
    headless = tmp_path / 'headless.pth'
    weights = {k: v for k, v in state_of(float_checkpoint).items() if 'bbox_head' not in k}
    save_checkpoint(dict(state_dict=weights), str(headless))
    deeper = tmp_path / 'deeper.pth'
    more = {'backbone.layer1.2.conv1.weight': torch.ones(8, 8, 3, 3)}
    save_checkpoint(dict(state_dict={**state_of(float_checkpoint), **more}), str(deeper))
    checkpoint = checkpoint.format(q=detector[1], f=float_checkpoint, c=other, h=headless, d=deeper)
    for name, setting in (
        ('untested', 'test_cfg = None'),
        ('frozen', 'model = dict(backbone=dict(norm_eval=True))'),
        ('gone', "train_dataloader = dict(dataset=dict(dataset=dict(data_root='/nowhere')))"),
    ):
        base = str(configs / 'quantized.py')
        (tmp_path / f'{name}.py').write_text(f'_base_ = {base!r}\n{setting}\n')
    path = tmp_path if (tmp_path / f'{config}.py').exists() else configs
    with pytest.raises(error, match=message):
        ptq(path / f'{config}.py', checkpoint, tmp_path / 'run', *options)
    assert not list(tmp_path.glob('run/*.pth'))


def test_needs_no_matplotlib():
    """A machine that only quantizes has no library for pictures."""
    script = f"""
import runpy, sys
sys.modules['matplotlib'] = None  # importing it raises an ImportError
import mmqnet.calibration, mmqnet.command_line.runners, mmqnet.models, mmqnet.quantizers
sys.argv = ['ptq.py', '--help']
runpy.run_path({str(TOOLS / 'ptq.py')!r}, run_name='__main__')
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'checkpoint file of the float model' in done.stdout

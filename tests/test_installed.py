"""mmqnet as a stranger has it: a wheel in an environment with the stack, no checkout near."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from toy_data import make_configs, make_data, write_float_checkpoint

ROOT = Path(__file__).resolve().parent.parent
SKIP = shutil.ignore_patterns(
    '.git', '.venv*', '.*_cache', 'build', 'data', 'work_dirs', '.mim', '*.so', 'tests', 'docs'
)  # fmt: skip
BUILD = 'import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])'
OWN = """
_base_ = ['float.py', 'mmqnet::_base_/quantization/{recipe}.py']
model = dict(
    type='mmqnet.QuantizedModel', architecture=_base_.model.type,
    quantization=dict(**_base_.quantization))
default_hooks = dict(**_base_.quantization_hooks)
default_hooks.update(gap=None)
load_from = {load_from!r}
train_cfg = dict(max_epochs=1, val_interval=1)
"""


class Environment:
    """Python of the environment, run in a folder without a checkout."""

    def __init__(self, folder: Path, cwd: Path) -> None:
        self.python = folder / 'bin' / 'python'
        self.packages = next(folder.glob('lib/python*/site-packages'))
        self.cwd = cwd

    def run(self, *command: object, fails: bool = False) -> str:
        """Return what a script prints; ``command`` is its path and arguments."""
        variables = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
        result = subprocess.run(
            [str(self.python), *map(str, command)], cwd=self.cwd, env=variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
        )  # fmt: skip
        assert (result.returncode != 0) is fails, result.stdout[-3000:]
        return result.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Environment:
    """An environment with the packages of this one, but with the wheel instead of the checkout."""
    folder = tmp_path_factory.mktemp('installed')
    shutil.copytree(ROOT, folder / 'source', ignore=SKIP)
    subprocess.run(
        [sys.executable, '-c', BUILD, str(folder)], cwd=folder / 'source', check=True,
        capture_output=True, env={**os.environ, 'MMQNET_WITH_KERNEL': '0'},
    )  # fmt: skip
    (wheel,) = folder.glob('*.whl')
    shutil.rmtree(folder / 'source')
    venv = folder / 'venv'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(venv)], check=True)
    environment = Environment(venv, folder)
    # a folder on the path, whose own start-up files, the editable install among them, are not read
    stack = sysconfig.get_paths()['purelib']
    (environment.packages / 'stack.pth').write_text(f'{stack}\n')
    pip = [sys.executable, '-m', 'pip', '--python', str(environment.python), 'install', '--no-deps']
    offline = ['--no-index', '--force-reinstall', '--disable-pip-version-check']
    subprocess.run([*pip, *offline, str(wheel)], check=True, capture_output=True)
    data = make_data(folder / 'data')
    make_configs(folder / 'configs', data)
    return environment


@pytest.fixture(scope='module')
def config(installed) -> Path:
    """A config of one's own, whose recipe is named by its `mmqnet::` path."""
    path = installed.cwd / 'configs' / 'own.py'
    float_checkpoint = str(write_float_checkpoint(path.parent, path.parent / 'float.pth'))
    path.write_text(OWN.format(recipe='lsq_w4-a4', load_from=float_checkpoint))
    return path


def test_it_is_the_wheel_without_a_kernel(installed):
    code = 'import mmqnet, mmqnet.ops.kernel as k; print(mmqnet.__file__, k.__file__)'
    printed = installed.run('-c', code)
    assert printed.count(str(installed.packages)) == 2
    assert not list(installed.packages.glob('mmqnet/ops/_C*'))


def test_python_starts_as_fast_as_before(installed):
    """Its start-up file imports mmqnet, which imports nothing of the stack."""
    code = 'import sys; print(*sorted(sys.modules))'
    modules = installed.run('-c', code).split()
    assert 'mmqnet' in modules
    assert not {'torch', 'numpy', 'mmengine', 'inspect', 'difflib'} & set(modules)
    times = [min(_seconds(installed, *options) for _ in range(3)) for options in ([], ['-S'])]
    assert times[0] - times[1] < 0.5


def _seconds(installed, *options):
    start = time.perf_counter()
    installed.run(*options, '-c', '')
    return time.perf_counter() - start


def stock_tool(library: str, name: str) -> Path:
    return Path(sysconfig.get_paths()['purelib'], library, '.mim', 'tools', f'{name}.py')


def test_train_with_mmdetections_tool_and_test_with_ours(installed, config):
    output = installed.run(stock_tool('mmdet', 'train'), config, '--work-dir', 'stock')
    assert 'Calibrated' in output
    checkpoint = installed.cwd / 'stock' / 'epoch_1.pth'
    ours = installed.packages / 'mmqnet' / '.mim' / 'tools' / 'test.py'
    output = installed.run(ours, config, checkpoint, '--work-dir', 'ours')
    assert 'coco/bbox_mAP' in output


APIS = """
import sys
from mmdet.apis import init_detector
from mmpretrain import get_model
models = init_detector(sys.argv[1], device='cpu'), get_model(sys.argv[2], device='cpu')
print('layers', *(len(model.quantization_report.quantized) for model in models))
"""
CLASSIFIER = """
_base_ = ['mmpretrain::_base_/models/resnet18.py', 'mmqnet::_base_/quantization/w3-a8-int.py']
default_scope = 'mmpretrain'
model = dict(type='mmqnet.QuantizedModel', architecture=_base_.model.type,
             quantization=dict(**_base_.quantization))
"""


def test_apis_of_both_libraries(installed, config):
    classifier = installed.cwd / 'configs' / 'classifier.py'
    classifier.write_text(CLASSIFIER)
    assert 'layers 21 21' in installed.run('-c', APIS, config, classifier)


NEAR = """
from mmengine.config import Config
from mmengine.hub import get_config
for path in ('retinanet/retinanet_r18_fpn_w3-a8u_1x_coco.py', 'ssd/ssd300_w3-a8_coco.py'):
    print(get_config(f'mmqnet::{path}').model.type)
Config.fromfile('configs/near.py')
"""


def test_whole_configs_and_near_misses(installed):
    path = installed.cwd / 'configs' / 'near.py'
    path.write_text("_base_ = 'mmqnet::_base_/quantization/w3-a8x.py'")
    lines = installed.run('-c', NEAR, fails=True).splitlines()
    assert lines[:2] == ['mmqnet.QuantizedModel'] * 2
    last = lines[-1]
    assert "mmqnet has no config 'mmqnet::_base_/quantization/w3-a8x.py'. Did you mean" in last
    assert "'_base_/quantization/w3-a8.py'" in last
    assert "'_base_/quantization/w3-a8u.py'" in last

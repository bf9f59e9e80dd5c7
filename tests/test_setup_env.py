"""The set-up script: stamps, clear lines; the installation itself is what every test runs in."""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def setup_env():
    spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'scripts' / 'setup_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def steps(setup_env, tmp_path):
    return setup_env.Steps(tmp_path / 'venv', total=1)


def test_complete_step_is_not_repeated(steps):
    done = []
    for key in ('1', '1', '2'):
        steps.run('name', 'title', 'a moment', key, lambda: done.append(1))
    assert len(done) == 2


def test_failed_step_leaves_no_stamp_and_shows_the_log(setup_env, steps, capsys):
    code = "print('what went wrong'); raise SystemExit(3)"
    with pytest.raises(setup_env.SetupError, match=r'failed \(3\), see .*venv\.log'):
        steps.run('name', 'title', '', '1', lambda: steps.call(sys.executable, '-c', code))
    assert 'what went wrong' in capsys.readouterr().out
    assert not steps.is_done('name', '1')


def test_interrupted_step_leaves_no_stamp(steps):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.run('name', 'title', '', '1', interrupt)
    assert not steps.is_done('name', '1')


def test_progress_of_a_compilation(steps):
    steps.log.write_text('Collecting a\n  [3/77] c++ -c a.cpp\n  [4/77] c++ -c b.cpp\nwarning\n')
    assert steps._compiled(0) == 'compiled 4 of 77 files'


def test_digest_changes_with_contents(setup_env, tmp_path):
    file = tmp_path / 'a.txt'
    missing = setup_env.digest(file)
    file.write_text('1')
    first = setup_env.digest(file)
    file.write_text('2')
    assert len({missing, first, setup_env.digest(file)}) == 3


@pytest.mark.parametrize(
    ('compiler', 'message'),
    [('no-such-compiler', "'no-such-compiler' is not found"), ('/bin/false', 'does not work')],
)
def test_compiler_is_checked(setup_env, monkeypatch, compiler, message):
    monkeypatch.setenv('CXX', compiler)
    with pytest.raises(setup_env.SetupError, match=message):
        setup_env.check_compiler()


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ('PYTHON=no-such-python', 'PYTHON=no-such-python is not found'),
        ('STACK=other', "STACK should be one of ['onedl', 'openmmlab'], but got 'other'"),
    ],
)
def test_wrong_setting_is_one_line(setting, message, tmp_path):
    command = ['make', 'setup', f'PYTHON={sys.executable}', f'VENV={tmp_path / "venv"}', setting]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not line.startswith('make')]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / 'venv').exists()


def test_wheels_are_kept_whole_or_not_at_all(setup_env, tmp_path, capsys):
    wheel = tmp_path / 'mmcv-1-cp311-cp311-linux_x86_64.whl'
    wheel.write_bytes(b'wheel')
    folder = tmp_path / 'cache' / 'torch-2'
    setup_env.keep(wheel, folder)
    assert [path.name for path in folder.iterdir()] == [wheel.name]
    assert (folder / wheel.name).read_bytes() == b'wheel'
    setup_env.keep(wheel, wheel / 'below a file')
    assert 'the wheel is not kept for other environments' in capsys.readouterr().out


def test_kept_wheel_is_taken_and_a_wrong_one_replaced(setup_env, tmp_path, monkeypatch):
    """With real files; what takes minutes, installing and compiling, is noted only."""
    arguments = argparse.Namespace(
        venv=str(tmp_path / 'venv'), stack='onedl', torch='2', torchvision='0', extras=()
    )
    made, fits = [], []

    class Environment(setup_env.Environment):
        def kept_wheels(self):
            return tmp_path / 'cache'

        def make_mmcv(self, folder, requirement, options):
            made.append((requirement, options))
            wheel = folder / 'onedl_mmcv-2.3.6-cp{}{}-x.whl'.format(*sys.version_info[:2])
            wheel.write_bytes(b'new')
            return wheel

        def installs_mmcv(self, wheel):
            return fits.pop(0)

    (tmp_path / 'venv').mkdir()
    environment = Environment(arguments)
    requirement = 'onedl-mmcv==2.3.6'
    fits[:] = [False, True]  # pip's cache is of another torch
    environment.install_mmcv()
    assert made == [(requirement, ()), (requirement, ('--no-cache-dir',))]
    (kept,) = (tmp_path / 'cache').iterdir()
    fits[:] = [True]
    environment.install_mmcv()
    assert len(made) == 2
    kept.write_bytes(b'of another torch')
    fits[:] = [False, True]
    environment.install_mmcv()
    assert made[2:] == [(requirement, ())]
    assert kept.read_bytes() == b'new'
    fits[:] = [False, False, False]
    with pytest.raises(setup_env.SetupError, match=r'mmcv\.ops of onedl-mmcv==2\.3\.6 cannot be'):
        environment.install_mmcv()


def test_compiler_with_ccache_is_left_alone(setup_env, monkeypatch, tmp_path):
    monkeypatch.setenv('CXX', 'ccache c++')
    assert setup_env.fast_compiler(tmp_path) == {}
    monkeypatch.delenv('CXX')
    program = setup_env.fast_compiler(tmp_path)['CXX']
    version = subprocess.run([program, '--version'], env={**os.environ, 'MMQNET_CXX': 'c++'})
    assert version.returncode == 0

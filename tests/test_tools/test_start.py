"""The start of the tools: arguments before heavy imports, the right Python, threads."""

import os
import resource
import shutil
import subprocess
import sys

import pytest

TOOLS = ('train', 'test', 'export', 'ptq', 'analyze', 'sensitivity')
HELP = 'usage: '
MISTAKES = dict(
    train=(['c.py', '--cfg-options', 'lr'], "--cfg-options: should be KEY=VALUE, but got 'lr'"),
    test=(['c.py', 'a.onnx'], "'a.onnx' needs --backend onnxruntime or openvino"),
    export=(
        ['c.py', 'a.pth', '--out', 'a.pth', '--format', 'checkpoint', '--raw'],
        '--raw has no effect with --format checkpoint',
    ),
    ptq=(['c.py', 'a.pth', '--out', 'a.onnx'], "--out should end in .pth, but got 'a.onnx'"),
    sensitivity=(['c.py', 'a.pth', '--out', 'a.png'], "--out should end in .json, but got 'a.png'"),
    analyze=(['staircase', 'c.py', 'a.pth', 'l', '--out', 'a.png', '--data', '0'], 'a positive'),
)


def run(root, *command, **variables):
    """Return code, output and processor seconds of a tool."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHONPATH': str(root), **variables},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return result.returncode, result.stdout, seconds


@pytest.mark.parametrize('tool', TOOLS)
def test_help_and_wrong_arguments_take_half_a_second_at_most(root, tool):
    arguments, message = MISTAKES[tool]
    code, output, seconds = run(root, f'tools/{tool}.py', '--help')
    assert code == 0
    assert output.startswith(HELP)
    assert seconds < 0.5
    code, output, seconds = run(root, f'tools/{tool}.py', *arguments)
    assert code == 2
    assert message in output.splitlines()[-1]
    assert seconds < 0.5


@pytest.mark.parametrize('has_environment', [True, False])
def test_another_python_names_the_environment(root, tmp_path, has_environment):
    """A copy of the tools beside a Makefile, run by a Python that has no packages."""
    shutil.copytree(root / 'tools', tmp_path / 'tools')
    (tmp_path / 'Makefile').touch()
    if has_environment:
        python = tmp_path / '.venv' / 'bin' / 'python'
        python.parent.mkdir(parents=True)
        python.touch()
    code, output, _ = run(root, '-S', tmp_path / 'tools' / 'train.py', PYTHONPATH='')
    assert code == 1
    (line,) = output.splitlines()
    assert line.startswith(f"train.py: error: {sys.executable}: No module named 'mmqnet'; ")
    expected = f'start the tool with {tmp_path}/.venv/bin/python' if has_environment else (
        f'`make setup` in {tmp_path} makes an environment that has it'
    )  # fmt: skip
    assert line.endswith(expected)


CHOICE = """
from mmqnet.command_line import choose_threads
import os, sys
print(choose_threads(*sys.argv[1:]))
print(*(os.environ.get(k) for k in ('OMP_NUM_THREADS', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')))
import torch
print(torch.get_num_threads())
"""


def chosen(root, *arguments, **variables):
    environment = {k: v for k, v in os.environ.items() if k != 'OMP_NUM_THREADS'}
    result = subprocess.run(
        [sys.executable, '-c', CHOICE, *arguments], text=True, capture_output=True, check=True,
        env={**environment, 'PYTHONPATH': str(root), **variables},
    )  # fmt: skip
    return result.stdout.splitlines()


def test_threads_are_chosen_before_torch(root):
    threads, variables, of_torch = chosen(root)
    assert 1 <= int(threads) <= os.cpu_count()
    assert variables.split() == [threads, '5000', '0']
    assert of_torch == threads


def test_an_explicit_number_of_threads_wins(root):
    expected = ['None', '1 None None', '1']
    assert chosen(root, OMP_NUM_THREADS='1', OMP_WAIT_POLICY='ACTIVE') == expected


def test_several_processes_are_left_to_mmengine(root):
    assert chosen(root, 'pytorch')[:2] == ['None', 'None 5000 0']


PACKAGES = """
import sys
import mmdet.apis
before = set(sys.modules)
from mmqnet.command_line import build_runner, check_hooks, load_config, log_hints, resume
new = {name.partition('.')[0] for name in set(sys.modules) - before}
print('new', *sorted(new - set(sys.stdlib_module_names) - {'mmqnet'}))
"""


def test_a_training_imports_no_packages_but_those_of_mmdetection(root):
    """So its start takes as long: 1.0 times the processor time of `import mmdet.apis`."""
    code, output, _ = run(root, '-c', PACKAGES)
    assert (code, output.splitlines()[-1]) == (0, 'new'), output

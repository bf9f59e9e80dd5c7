"""scripts/compiler.py with a real compiler and a small header in the place of torch's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = Path(__file__).resolve().parent.parent / 'scripts' / 'compiler.py'
SOURCE = '#include <torch/types.h>\nint answer() { return ANSWER; }\n'


@pytest.fixture
def project(tmp_path):
    (tmp_path / 'torch').mkdir()
    (tmp_path / 'torch' / 'types.h').write_text('#pragma once\n#define ANSWER 42\n')
    (tmp_path / 'a.cpp').write_text(SOURCE)
    return tmp_path


def compile_(project, *arguments, compiler='c++'):
    """Return the code and what was printed; `-H` prints the headers that are read."""
    variables = dict(MMQNET_CXX=compiler, MMQNET_HEADERS=str(project / 'headers'))
    result = subprocess.run(
        [sys.executable, str(COMPILER), '-I', str(project), *arguments], cwd=project,
        env={**os.environ, **variables}, text=True, capture_output=True,
    )  # fmt: skip
    return result.returncode, result.stdout + result.stderr


def test_headers_are_read_once_for_the_same_flags(project):
    for i, flags in enumerate((['-O1'], ['-O1'], ['-O0'])):
        output = f'{i}.o'
        arguments = ['-MMD', '-MF', f'{i}.d', *flags, '-c', 'a.cpp', '-o', output]
        assert compile_(project, *arguments)[0] == 0
        assert (project / output).exists()
        assert (project / f'{i}.d').exists()
    made = sorted((project / 'headers').glob('*/torch.h.gch'))
    assert len(made) == 2
    header = next(path for path in made if is_used(project, path.with_suffix('')))
    assert header.with_suffix('').read_text() == '#include <torch/types.h>\n'


def is_used(project, header):
    """Whether GCC takes the precompiled header for the flags `-O1`, which it marks with `!`."""
    command = ['c++', '-I', str(project), '-O1', '-H', '-include', str(header), '-c', 'a.cpp']
    result = subprocess.run(command, cwd=project, text=True, capture_output=True, check=True)
    return f'! {header}.gch' in result.stderr


def test_a_header_that_cannot_be_compiled_costs_nothing_else(project):
    (project / 'a.cpp').write_text('int answer() { return 42; }\n')
    (project / 'torch' / 'types.h').write_text('this is no C++\n')
    assert compile_(project, '-c', 'a.cpp', '-o', 'a.o') == (0, '')
    assert (project / 'a.o').exists()
    assert not list((project / 'headers').glob('*/*.gch'))


def test_a_precompiled_header_that_does_not_fit_is_left(project):
    arguments = ['-c', 'a.cpp', '-o', 'a.o']
    assert compile_(project, *arguments)[0] == 0
    (header,) = (project / 'headers').glob('*/torch.h')
    header.write_text('this is no C++ either\n')
    header.with_suffix('.h.gch').write_bytes(b'damaged')
    (project / 'a.o').unlink()
    assert compile_(project, *arguments) == (0, '')
    assert (project / 'a.o').exists()


def test_errors_and_other_calls_are_the_compilers(project):
    (project / 'a.cpp').write_text('int answer() { return nothing; }\n')
    code, printed = compile_(project, '-c', 'a.cpp', '-o', 'a.o')
    assert code != 0
    assert "'nothing'" in printed.replace('\u2018', "'").replace('\u2019', "'")
    assert compile_(project, '--version')[0] == 0

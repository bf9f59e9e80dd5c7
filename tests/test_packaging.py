"""What a wheel, a source distribution and an editable install hold."""

import contextlib
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import mmqnet

ROOT = Path(__file__).resolve().parent.parent
SKIP = shutil.ignore_patterns(
    '.git',
    '.venv*',
    '.*_cache',
    '.hypothesis',
    'build',
    'data',
    'work_dirs',
    '.mim',
    '*.so',
    '*.pth',
)
BUILD = """
import sys, setuptools.build_meta as backend
print(getattr(backend, sys.argv[1])(sys.argv[2]))
"""


def build(source: Path, what: str, target: Path, **variables: str) -> str:
    """Call the build backend as pip does; return what it printed, its last line the file's name."""
    target.mkdir(exist_ok=True)
    result = subprocess.run(
        [sys.executable, '-c', BUILD, what, str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """A copy of the checkout, so that building leaves nothing in it."""
    copy = tmp_path_factory.mktemp('source') / 'mmqnet'
    shutil.copytree(ROOT, copy, ignore=SKIP)
    return copy


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp('wheel')
    output = build(source, 'build_wheel', folder, MMQNET_WITH_KERNEL='0')
    with zipfile.ZipFile(folder / output.split()[-1]) as file:
        yield file


@pytest.fixture(scope='module')
def metadata(wheel) -> email.message.Message:
    name = next(name for name in wheel.namelist() if name.endswith('.dist-info/METADATA'))
    return email.message_from_bytes(wheel.read(name))


def files_below(folder: str, *kinds: str) -> list[str]:
    paths = (ROOT / folder).rglob('*')
    return [p.relative_to(ROOT).as_posix() for p in paths if p.suffix in kinds and p.is_file()]


def test_wheel_holds_every_module(wheel):
    expected = [name for name in files_below('mmqnet', '.py') if '/.mim/' not in name]
    assert set(expected) <= set(wheel.namelist())
    assert 'mmqnet/py.typed' in wheel.namelist()


def test_wheel_holds_what_mim_looks_for(wheel):
    expected = ['model-index.yml']
    expected += files_below('configs', '.py', '.yml', '.md')
    expected += files_below('tools', '.py', '.sh')
    assert {f'mmqnet/.mim/{name}' for name in expected} <= set(wheel.namelist())
    assert len(expected) > 5
    assert not [name for name in wheel.namelist() if '__pycache__' in name]


def test_wheel_holds_the_kernels_sources(wheel):
    sources = files_below('mmqnet/ops/csrc', '.cpp', '.h')
    assert sources
    assert set(sources) <= set(wheel.namelist())


def test_wheel_leaves_the_rest_out(wheel):
    tops = {name.split('/')[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith('.dist-info')} == {
        'mmqnet',
        'mmqnet_startup.pth',
    }


def test_metadata(metadata):
    assert metadata['Version'] == mmqnet.__version__
    assert metadata['Author'] == 'The mmqnet authors'
    extras = set(metadata.get_all('Provides-Extra'))
    expected = {'onedl', 'openmmlab', 'demo', 'export', 'qonnx', 'litert', 'executorch', 'dev'}
    assert extras == expected


def test_neither_stack_is_required(metadata):
    required = [line for line in metadata.get_all('Requires-Dist') if 'extra ==' not in line]
    assert {re.match(r'[\w-]+', line).group() for line in required} == {'torch', 'numpy', 'scipy'}


@pytest.mark.parametrize(('extra', 'package'), [('onedl', 'onedl-mmcv'), ('openmmlab', 'mmcv')])
def test_each_stack_is_an_extra(metadata, extra, package):
    lines = [line for line in metadata.get_all('Requires-Dist') if f'"{extra}"' in line]
    names = {re.match(r'[\w-]+', line).group() for line in lines}
    assert package in names
    assert all('==' in line for line in lines if not line.startswith('numpy'))
    assert not any(name.startswith('onedl-') for name in names) or extra == 'onedl'


def test_source_distribution_builds_the_same_wheel(source, wheel, tmp_path):
    name = build(source, 'build_sdist', tmp_path, MMQNET_WITH_KERNEL='0').split()[-1]
    with tarfile.open(tmp_path / name) as file:
        file.extractall(tmp_path, filter='data')
    unpacked = tmp_path / name.removesuffix('.tar.gz')
    again = build(unpacked, 'build_wheel', tmp_path, MMQNET_WITH_KERNEL='0').split()[-1]
    with zipfile.ZipFile(tmp_path / again) as file:
        assert set(file.namelist()) == set(wheel.namelist())


def test_editable_install_links_and_goes_on_without_a_compiler(source, tmp_path):
    variables = dict(CXX='/bin/false', CC='/bin/false')
    output = build(source, 'build_editable', tmp_path / 'editable', **variables)
    lines = [line for line in output.splitlines() if line.startswith('mmqnet: the C++ kernel')]
    assert len(lines) == 1, output
    assert 'plain PyTorch one is used' in lines[0]
    assert not list((source / 'mmqnet' / 'ops').glob('_C*.so'))
    (editable,) = (tmp_path / 'editable').glob('*.whl')
    assert 'mmqnet_startup.pth' in zipfile.ZipFile(editable).namelist()
    for name in ('configs', 'tools', 'model-index.yml'):
        link = source / 'mmqnet' / '.mim' / name
        assert link.is_symlink()
        assert link.resolve() == (source / name).resolve()


def test_second_editable_install_renews_the_links(source, tmp_path):
    folder = source / 'mmqnet' / '.mim'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source / 'tools', folder / 'tools')  # as a wheel would have it
    (folder / 'configs').symlink_to('nowhere')
    build(source, 'build_editable', tmp_path / 'editable', MMQNET_WITH_KERNEL='0')
    assert (folder / 'tools').is_symlink()
    assert (folder / 'configs').resolve() == (source / 'configs').resolve()


def test_missing_torch_leaves_the_kernel_out(source, tmp_path):
    """As in an isolated build, which does not have torch."""
    (tmp_path / 'torch.py').write_text("raise ImportError('no torch in here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    output = build(source, 'build_wheel', tmp_path / 'wheel', PYTHONPATH=path)
    assert 'torch cannot be imported here (no torch in here)' in output


def test_model_index_lists_every_metafile():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').rglob('metafile.yml')
    )


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == mmqnet.__version__
    assert citation['preferred-citation']['title'] == 'Quantization Networks'
    assert f'## {mmqnet.__version__}' in (ROOT / 'CHANGELOG.md').read_text()


def test_startup_file_is_one_line_that_keeps_silent(wheel, tmp_path):
    """site.py executes each line; a checkout that has been moved away is no reason to complain."""
    (line,) = wheel.read('mmqnet_startup.pth').decode().splitlines()
    assert line.startswith('import sys;')
    (tmp_path / 'mmqnet_startup.pth').write_text(line)
    code = f'import site; site.addsitedir({str(tmp_path)!r}); print("mmqnet" in sys.modules)'
    command = [sys.executable, '-S', '-I', '-c', f'import sys; {code}']
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ('False\n', '')


@pytest.mark.parametrize(('made_for', 'fits'), [('same', True), ('1.9.0+cpu', False), (None, True)])
def test_kernel_of_another_torch_is_not_loaded(tmp_path, made_for, fits):
    import torch

    from mmqnet.ops.kernel import check_torch

    if made_for is not None:
        made_for = torch.__version__ if made_for == 'same' else made_for
        (tmp_path / '_C.torch').write_text(made_for)
    context = contextlib.nullcontext() if fits else pytest.raises(ImportError, match=made_for[:3])
    with context:
        check_torch(tmp_path)

"""The examples in docstrings run; hooks and the functions that users call have one."""

import dataclasses
import doctest
import importlib
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

import mmqnet
from mmqnet.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

PACKAGE = Path(mmqnet.__file__).resolve().parent
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted(
    '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
    for path in PACKAGE.rglob('*.py')
    if '.mim' not in path.parts and '>>>' in path.read_text(encoding='utf-8')
)


@pytest.mark.parametrize('name', MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    monkeypatch.setattr('tempfile.tempdir', None)  # TMPDIR is read again
    monkeypatch.setenv('LOCAL_RANK', '0')
    MMLogger.get_instance('examples', log_level='ERROR')  # the logs are not part of the examples
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=OPTIONS)
        runner.run(test, out=report.append)
        assert not runner.failures, ''.join(report)


def without_example(public: dict[str, object]) -> set[str]:
    """Return the names of functions and classes without an example; data classes need none."""
    return {
        name
        for name, value in public.items()
        if value.__module__.startswith('mmqnet.')
        and not dataclasses.is_dataclass(value)
        and '>>>' not in (value.__doc__ or '')
    }


@pytest.mark.parametrize('registry', [HOOKS, OPTIM_WRAPPERS, OPTIM_WRAPPER_CONSTRUCTORS])
def test_what_configs_name_has_an_example(registry):
    registry.import_from_location()
    assert registry.module_dict
    assert without_example(registry.module_dict) == set()


@pytest.mark.parametrize('package', ['command_line', 'visualization'])
def test_what_users_call_has_an_example(package):
    module = importlib.import_module(f'mmqnet.{package}')
    assert without_example({name: getattr(module, name) for name in module.__all__}) == set()

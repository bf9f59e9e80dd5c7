"""The examples in docstrings run; hooks and the functions that users call have one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

import mmqnet

PACKAGE = Path(mmqnet.__file__).resolve().parent
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WITHOUT_EXAMPLE = {'CalibrationHook', 'PhaseHook', 'ScaleLogHook', 'TemperatureHook'}
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


@pytest.mark.parametrize(
    'package', ['command_line', 'engine.hooks', 'engine.optimizers', 'visualization']
)
def test_what_users_call_has_an_example(package):
    module = importlib.import_module(f'mmqnet.{package}')
    public = {name: getattr(module, name) for name in module.__all__}
    ours = {
        name: value
        for name, value in public.items()
        if value.__module__.startswith('mmqnet.') and not only_holds_data(value)
    }
    without = {name for name, value in ours.items() if '>>>' not in (value.__doc__ or '')}
    assert without <= WITHOUT_EXAMPLE


def only_holds_data(value: object) -> bool:
    """Return whether a value is a class that only holds data."""
    return inspect.isclass(value) and hasattr(value, '__dataclass_fields__')

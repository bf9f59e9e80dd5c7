import importlib

import mmengine.registry
import pytest

from mmqnet import registry

NAMES = sorted(registry.__all__)
OURS = {'QUANTIZERS'}  # MMEngine has nothing like it


@pytest.mark.parametrize('name', sorted({*NAMES} - OURS))
def test_registry_is_a_child_of_mmengines(name):
    child = getattr(registry, name)
    parent = getattr(mmengine.registry, name)
    assert child.parent is parent
    assert child.scope == 'mmqnet'
    assert parent.children['mmqnet'] is child


@pytest.mark.parametrize('name', NAMES)
def test_locations_register_something(name):
    child = getattr(registry, name)
    assert child._locations
    for location in child._locations:
        importlib.import_module(location)
    child.import_from_location()
    assert len(child) > 0


@pytest.mark.parametrize('name', NAMES)
def test_only_our_own_objects_are_registered(name):
    child = getattr(registry, name)
    child.import_from_location()
    for key, value in child.module_dict.items():
        assert value.__module__.startswith('mmqnet.'), key


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('MODELS', 'QuantizedModel'),
        ('MODELS', 'QuantConv2d'),
        ('MODELS', 'QuantLinear'),
        ('HOOKS', 'CalibrationHook'),
        ('HOOKS', 'TemperatureHook'),
        ('HOOKS', 'PhaseHook'),
        ('HOOKS', 'SoftHardGapHook'),
        ('OPTIM_WRAPPER_CONSTRUCTORS', 'QuantOptimWrapperConstructor'),
    ],
)
def test_prefix_finds_what_configs_name(name, key):
    assert getattr(mmengine.registry, name).get(f'mmqnet.{key}') is not None
    # Without the prefix it stays out of the way of other packages.
    assert getattr(mmengine.registry, name).get(key) is None


def test_prefix_alone_imports_mmqnet(run_python):
    """As with the stock tools, which know nothing of us: no ``custom_imports``."""
    code = """
        import sys
        from mmengine.registry import HOOKS, MODELS
        assert 'mmqnet.engine' not in sys.modules
        with HOOKS.switch_scope_and_registry('mmdet') as hooks:
            print(hooks.get('mmqnet.TemperatureHook').__name__)
        print(MODELS.get('mmqnet.QuantizedModel').__name__)
    """
    assert run_python(code).split()[-2:] == ['TemperatureHook', 'QuantizedModel']


def test_unknown_name_is_not_found():
    with pytest.raises(KeyError, match=r'mmqnet\.NoSuchModel'):
        mmengine.registry.MODELS.build(dict(type='mmqnet.NoSuchModel'))

"""Checks of the ``model`` and of the hooks of a config, before anything is built."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmqnet.checks import check_keys, did_you_mean
from mmqnet.distillation import check_teacher
from mmqnet.engine import hooks as mmqnet_hooks
from mmqnet.engine.hooks import CalibrationHook, DistillationHook
from mmqnet.models import check_model_keys

QUANTIZED = 'QuantizedModel'
_ADD_HOOKS = '`default_hooks = dict(**_base_.quantization_hooks)`'


def check_model(config: Config) -> None:
    """Check the keys that quantize a model.

    Raises:
        ValueError: If the model's type is a float one, or a key is missing or misspelt.
    """
    model = config.get('model')
    if not isinstance(model, Mapping):
        return
    if is_quantized(model):
        check_model_keys(model)
    elif 'quantization' in model:
        raise ValueError(
            "`model.type` should be 'mmqnet.QuantizedModel', and `model.architecture` the type of "
            f'the float model, where `model.quantization` is given, but got {model.get("type")!r}'
        )


def is_quantized(model: Any) -> bool:
    """Return whether the config of a model has the type ``mmqnet.QuantizedModel``."""
    kind = model.get('type') if isinstance(model, Mapping) else None
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2] == QUANTIZED


def check_hooks(config: Config) -> None:
    """Check that the hooks of a training calibrate its model, none runs twice, a teacher exists.

    Raises:
        FileNotFoundError: If the checkpoint of the teacher does not exist.
        ValueError: If ``custom_hooks`` is a dict, a hook of ours or one of its arguments does not
            exist, a hook stands in both places, or the model is quantized and nothing calibrates
            it.

    Example:
        >>> check_hooks(Config(dict(custom_hooks=dict(calibration=dict()))))
        Traceback (most recent call last):
            ...
        ValueError: `custom_hooks` should be a list, but got a dict with ['calibration']: hooks with
        names belong into a dict `default_hooks`
    """
    custom = config.get('custom_hooks') or []
    if isinstance(custom, Mapping):
        raise ValueError(
            f'`custom_hooks` should be a list, but got a dict with {sorted(custom)}: hooks with '
            'names belong into a dict `default_hooks`'
        )
    default = config.get('default_hooks') or {}
    named = {name: _class_of(hook, config) for name, hook in default.items() if hook is not None}
    if 'checkpoint' not in default:  # MMEngine adds its own
        named['checkpoint'] = _class_of(dict(type='CheckpointHook'), config)
    listed = [_class_of(hook, config) for hook in custom]
    _refuse_doubles(named, listed)
    for name, hook in default.items():
        _check_hook(hook, named.get(name), f'default_hooks.{name}')
    for i, (hook, kind) in enumerate(zip(custom, listed, strict=True)):
        _check_hook(hook, kind, f'custom_hooks[{i}]')
    hooks = [kind for kind in (*named.values(), *listed) if kind is not None]
    calibrates = any(issubclass(kind, CalibrationHook) for kind in hooks)
    if is_quantized(config.get('model')) and not calibrates:
        raise ValueError(
            '`model` is quantized, but no hook calibrates it: add '
            f"{_ADD_HOOKS} or `default_hooks.calibration=dict(type='mmqnet.CalibrationHook')`"
        )


def _refuse_doubles(named: Mapping[str, type | None], listed: Sequence[type | None]) -> None:
    for i, kind in enumerate(listed):
        for name, other in named.items():
            if kind is not None and _is_ours(kind) and _do_the_same(kind, other):
                raise ValueError(
                    f'`custom_hooks[{i}]` and `default_hooks.{name}` would both run, and do the '
                    f'same: take {kind.__name__} out of `custom_hooks`, and write {_ADD_HOOKS}'
                )


def _check_hook(hook: Any, kind: type | None, key: str) -> None:
    """Check the type of a hook's config, and for hooks of ours the names of its arguments."""
    if not isinstance(hook, Mapping):
        return
    name = str(hook.get('type'))
    if kind is None and name.startswith('mmqnet.'):
        known = [f'mmqnet.{name}' for name in mmqnet_hooks.__all__]
        raise ValueError(f'`{key}.type` is {name!r}, which is no hook.{did_you_mean(name, known)}')
    if kind is None or not _is_ours(kind):
        return
    parameters = signature(kind).parameters.values()
    names = [parameter.name for parameter in parameters]
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        check_keys(hook, ['type', 'priority', '_scope_', *names], key)
    if kind is DistillationHook and isinstance(hook.get('teacher'), str):
        check_teacher(hook['teacher'])


def _class_of(hook: Any, config: Config) -> type | None:
    """Return the class of a hook or of its config; None if the registries have none."""
    if isinstance(hook, Hook):
        return type(hook)
    kind = hook.get('type') if isinstance(hook, Mapping) else None
    if not isinstance(kind, str):
        return kind if isinstance(kind, type) else None
    scope = hook.get('_scope_') or config.get('default_scope')
    with HOOKS.switch_scope_and_registry(scope) as registry:
        return registry.get(kind)


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith('mmqnet.')


def _do_the_same(kind: type, other: type | None) -> bool:
    """Whether two hooks are of one class, or both save checkpoints."""
    saves = MMEngineCheckpointHook
    return kind is other or bool(other and issubclass(kind, saves) and issubclass(other, saves))

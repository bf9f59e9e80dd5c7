"""Command line of the tools: arguments, threads, configs, checkpoints and runners.

Names are imported when they are first used: the tools parse their arguments, and refuse wrong ones,
before torch and MMEngine are imported, which takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmqnet.command_line.arguments import add_arguments, add_settings, positive_integer
    from mmqnet.command_line.checkpoints import check_checkpoint, resume
    from mmqnet.command_line.configs import load_config, use_mixed_precision
    from mmqnet.command_line.model_checks import check_hooks
    from mmqnet.command_line.runners import build_runner
    from mmqnet.command_line.threads import choose_threads
    from mmqnet.command_line.training_hints import log_hints

__all__ = [
    'add_arguments',
    'add_settings',
    'build_runner',
    'check_checkpoint',
    'check_hooks',
    'choose_threads',
    'load_config',
    'log_hints',
    'positive_integer',
    'resume',
    'use_mixed_precision',
]

_MODULES = dict(
    add_arguments='arguments',
    add_settings='arguments',
    build_runner='runners',
    check_checkpoint='checkpoints',
    check_hooks='model_checks',
    choose_threads='threads',
    load_config='configs',
    log_hints='training_hints',
    positive_integer='arguments',
    resume='checkpoints',
    use_mixed_precision='configs',
)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)

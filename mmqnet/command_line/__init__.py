"""Command line of the tools: arguments, threads, configs, checkpoints and runners.

Names are imported when they are first used: the tools parse their arguments, and refuse wrong ones,
before torch and MMEngine are imported, which takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmqnet.command_line.arguments import (
        add_arguments,
        add_settings,
        add_trust,
        positive_integer,
    )
    from mmqnet.command_line.checkpoints import check_checkpoint, load_float, resume
    from mmqnet.command_line.configs import load_config, use_mixed_precision
    from mmqnet.command_line.model_checks import check_hooks
    from mmqnet.command_line.processes import leave_processes
    from mmqnet.command_line.runners import build_runner
    from mmqnet.command_line.threads import choose_threads
    from mmqnet.command_line.training import train
    from mmqnet.command_line.training_hints import log_hints
    from mmqnet.safe_checkpoints import safe_loading

__all__ = [
    'add_arguments',
    'add_settings',
    'add_trust',
    'build_runner',
    'check_checkpoint',
    'check_hooks',
    'choose_threads',
    'leave_processes',
    'load_config',
    'load_float',
    'log_hints',
    'positive_integer',
    'resume',
    'safe_loading',
    'train',
    'use_mixed_precision',
]

_MODULES = dict(
    add_arguments='mmqnet.command_line.arguments',
    add_settings='mmqnet.command_line.arguments',
    add_trust='mmqnet.command_line.arguments',
    build_runner='mmqnet.command_line.runners',
    check_checkpoint='mmqnet.command_line.checkpoints',
    check_hooks='mmqnet.command_line.model_checks',
    choose_threads='mmqnet.command_line.threads',
    leave_processes='mmqnet.command_line.processes',
    load_config='mmqnet.command_line.configs',
    load_float='mmqnet.command_line.checkpoints',
    log_hints='mmqnet.command_line.training_hints',
    positive_integer='mmqnet.command_line.arguments',
    resume='mmqnet.command_line.checkpoints',
    safe_loading='mmqnet.safe_checkpoints',
    train='mmqnet.command_line.training',
    use_mixed_precision='mmqnet.command_line.configs',
)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_MODULES[name]), name)

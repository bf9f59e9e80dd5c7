"""Command line of the tools: arguments, configs, checkpoints and runners."""

from mmqnet.command_line.arguments import add_arguments, positive_integer
from mmqnet.command_line.checkpoints import check_checkpoint, load_float, resume
from mmqnet.command_line.configs import load_config, use_mixed_precision
from mmqnet.command_line.runners import build_runner

__all__ = [
    'add_arguments',
    'build_runner',
    'check_checkpoint',
    'load_config',
    'load_float',
    'positive_integer',
    'resume',
    'use_mixed_precision',
]

"""Command line of the tools: arguments, configs, checkpoints and runners."""

from mmqnet.command_line.arguments import add_arguments, add_trust, positive_integer
from mmqnet.command_line.checkpoints import check_checkpoint, resume
from mmqnet.command_line.configs import load_config, use_mixed_precision
from mmqnet.command_line.runners import build_runner
from mmqnet.command_line.training import train
from mmqnet.safe_checkpoints import safe_loading

__all__ = [
    'add_arguments',
    'add_trust',
    'build_runner',
    'check_checkpoint',
    'load_config',
    'positive_integer',
    'resume',
    'safe_loading',
    'train',
    'use_mixed_precision',
]

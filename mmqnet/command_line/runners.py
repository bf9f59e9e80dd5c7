"""Runners of configs, on one process or several."""

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmqnet.command_line.processes import join_processes
from mmqnet.command_line.training import check_work_dir
from mmqnet.engine.hooks import CalibrationHook, CheckpointCheckHook
from mmqnet.failures import naming


def build_runner(config: Config) -> Runner:
    """Build the runner that a config describes.

    Raises:
        OSError: If the work dir cannot be written.
        ValueError: If several processes without GPUs are to use NCCL or one GPU each.

    Example:
        >>> import tempfile
        >>> config = Config(dict(
        ...     model=dict(type='mmqnet.AlexNetBN', channels=[8] * 5, hidden_channels=8),
        ...     work_dir=tempfile.mkdtemp(), launcher='none', log_level='ERROR'))
        >>> type(build_runner(config).model).__name__
        'AlexNetBN'
    """
    if config.launcher == 'pytorch' and get_device() == 'cpu':
        join_processes(config)
    check_work_dir(config.work_dir)
    with naming('the config cannot be built'):
        runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    if not any(isinstance(hook, CalibrationHook) for hook in runner.hooks):
        runner.register_hook(CheckpointCheckHook())  # CalibrationHook makes the same checks
    return runner

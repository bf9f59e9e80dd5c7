"""Runners of configs, on one process or several."""

from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

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
        _join_processes(config)
    check_work_dir(config.work_dir)
    with naming('the config cannot be built'):
        runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    if not any(isinstance(hook, CalibrationHook) for hook in runner.hooks):
        runner.register_hook(CheckpointCheckHook())  # CalibrationHook makes the same checks
    return runner


def _join_processes(config: Config) -> None:
    """Initialize torch.distributed on CPUs: MMEngine's own initialization selects a CUDA device.

    MMEngine skips its own where this has been done.
    """
    settings = dict(config.get('env_cfg', {}).get('dist_cfg', {}))
    backend, wrapper = settings.get('backend', 'nccl'), config.get('model_wrapper_cfg')
    # without a wrapper of the config MMEngine gives its own a device
    if backend == 'nccl' or not wrapper or wrapper.get('device_ids') is not None:
        raise ValueError(
            "`env_cfg.dist_cfg.backend` should be 'gloo' where there is no GPU, and "
            "`model_wrapper_cfg` dict(type='MMDistributedDataParallel', device_ids=None), but got "
            f'{backend!r} and {wrapper!r}'
        )
    if 'timeout' in settings:
        settings['timeout'] = timedelta(seconds=settings['timeout'])
    torch.distributed.init_process_group(**settings)

"""Several processes: how each of them joins the others, and leaves them."""

import gc
from datetime import timedelta

import torch
from mmengine.config import Config


def join_processes(config: Config) -> None:
    """Initialize torch.distributed on CPUs: MMEngine's own initialization selects a CUDA device.

    MMEngine skips its own where this has been done.

    Raises:
        ValueError: If the processes are to use NCCL or one GPU each.

    Example:
        >>> join_processes(Config(dict(env_cfg=dict(dist_cfg=dict(backend='nccl')))))
        Traceback (most recent call last):
            ...
        ValueError: `env_cfg.dist_cfg.backend` should be 'gloo' where there is no GPU, and ...
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


def leave_processes() -> None:
    """End torch.distributed, where it was initialized, as the last step of a tool that succeeded.

    Gloo's threads give up tensors of Python's a moment after the last exchange has returned. If the
    interpreter ends in that moment the process is aborted, although all its work is done
    (https://github.com/pytorch/pytorch/pull/179291).

    Example:
        >>> leave_processes()  # one process alone has none to leave
        >>> torch.distributed.is_initialized()
        False
    """
    if torch.distributed.is_initialized():
        gc.collect()  # the threads end with their group, and a model in cycles would keep it
        torch.distributed.destroy_process_group()

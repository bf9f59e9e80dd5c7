"""What the command lines of training and testing share."""

import argparse
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmqnet.engine.latest_checkpoint import is_complete, latest_checkpoint

_WRAPPERS = ('OptimWrapper', 'AmpOptimWrapper', 'BFloat16OptimWrapper')
_OF_AMP = ('loss_scale', 'dtype', 'use_fsdp')  # arguments of AmpOptimWrapper alone
# What MMPretrain's own tools fill in; its configs leave it out.
_MMPRETRAIN_LOADER = dict(
    pin_memory=True, persistent_workers=True, collate_fn=dict(type='default_collate')
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that MMDetection's train and test tools have in common."""
    parser.add_argument('--work-dir', help='folder of logs, checkpoints and results')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings that override the config, key=value; lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started',
    )
    # torch.distributed.launch passes --local-rank
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(args: argparse.Namespace, loaders: tuple[str, ...]) -> Config:
    """Reads the config file and applies the common arguments.

    Args:
        args: With ``config`` and what :func:`add_arguments` added.
        loaders: Keys of the data loaders that will be used, whose files are looked for now.

    Raises:
        FileNotFoundError: If the config file or an annotation file does not exist.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not Path(args.config).is_file():
        raise FileNotFoundError(f'the config file {args.config!r} does not exist')
    config = Config.fromfile(args.config)
    config.launcher = args.launcher
    if config.get('default_scope') == 'mmpretrain':
        _complete_mmpretrain(config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs', Path(args.config).stem))
    for key in loaders:
        _check_files(config, key)
    return config


def resume(config: Config, checkpoint: str) -> None:
    """Makes the run that a config describes go on where it was stopped.

    Args:
        config: Changed in place.
        checkpoint: Path of a checkpoint, or ``'auto'`` for the latest complete one in the work dir.
            Without one there, as after a stop before the first checkpoint, the run starts from the
            beginning, with the weights that the config loads.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it is torn.
    """
    if checkpoint == 'auto':
        latest = latest_checkpoint(config.work_dir)
        if latest is None:
            return
        checkpoint = latest
    check_checkpoint(checkpoint)
    if '://' not in checkpoint and not is_complete(checkpoint):
        raise ValueError(f'the checkpoint {checkpoint!r} is torn: its end is missing')
    config.resume, config.load_from = True, checkpoint


def use_mixed_precision(config: Config) -> None:
    """Makes the training that a config describes use automatic mixed precision.

    Args:
        config: Changed in place. MMEngine's AmpOptimWrapper refuses CPUs, so there it is bfloat16
            without a loss scaler.

    Raises:
        ValueError: If there is no optimizer wrapper, or one of another type.
    """
    wrapper = config.get('optim_wrapper')
    if not wrapper:
        raise ValueError('--amp needs `optim_wrapper` in the config')
    given = wrapper.get('type', 'OptimWrapper')
    name = getattr(given, '__name__', str(given)).rpartition('.')[2]
    if name not in _WRAPPERS:
        raise ValueError(
            f"`optim_wrapper.type` should be 'OptimWrapper' for --amp, but got {given!r}"
        )
    if get_device() == 'cpu':
        wrapper.type = 'mmqnet.BFloat16OptimWrapper'
        for key in _OF_AMP:
            wrapper.pop(key, None)
    elif name != 'BFloat16OptimWrapper':  # which is mixed precision already
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')


def check_checkpoint(checkpoint: str) -> None:
    """Looks for a checkpoint before the long work of building a model.

    Raises:
        FileNotFoundError: If it is a local path that does not exist.
    """
    if '://' not in checkpoint and not Path(checkpoint).exists():
        raise FileNotFoundError(f'the checkpoint {checkpoint!r} does not exist')


def build_runner(config: Config) -> Runner:
    """Builds the runner that a config asks for.

    Raises:
        ValueError: If several processes without GPUs are to talk through NCCL, or to have one each.
    """
    if config.launcher == 'pytorch' and get_device() == 'cpu':
        _join_processes(config)
    return RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)


def _join_processes(config: Config) -> None:
    """Starts torch.distributed on CPUs: MMEngine's own start selects a CUDA device.

    MMEngine leaves alone what has been started.
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


def _complete_mmpretrain(config: Config) -> None:
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if config.get(key):
            config[key] = {**_MMPRETRAIN_LOADER, **config[key]}
            if not config[key]['num_workers']:
                config[key]['persistent_workers'] = False


def _check_files(config: Config, key: str) -> None:
    """Looks for annotation files before the long work of building a model."""
    loader = config.get(key) or {}
    for where, dataset in _datasets(loader.get('dataset'), f'{key}.dataset'):
        ann_file, root = dataset.get('ann_file'), dataset.get('data_root') or ''
        if not ann_file or '://' in f'{root}{ann_file}':
            continue
        path = Path(root, ann_file)
        if not path.exists():
            raise FileNotFoundError(
                f'`{where}.ann_file`: {str(path)!r} does not exist: put the data set below '
                f'{root or "this folder"!r} or set `data_root`'
            )


def _datasets(dataset: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(dataset, list | tuple):
        for i, item in enumerate(dataset):
            yield from _datasets(item, f'{where}[{i}]')
    elif isinstance(dataset, dict):
        yield where, dataset
        yield from _datasets(dataset.get('dataset'), f'{where}.dataset')
        yield from _datasets(dataset.get('datasets'), f'{where}.datasets')

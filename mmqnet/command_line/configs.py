"""Config files with the arguments of a command line applied."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.device import get_device

from mmqnet.command_line.class_checks import check_classes
from mmqnet.command_line.model_checks import check_model
from mmqnet.failures import naming

_WRAPPERS = ('OptimWrapper', 'AmpOptimWrapper', 'BFloat16OptimWrapper')
_OF_AMP = ('loss_scale', 'dtype', 'use_fsdp')  # arguments of AmpOptimWrapper alone
# What MMPretrain's own tools fill in; its configs leave it out.
_MMPRETRAIN_LOADER = dict(
    pin_memory=True, persistent_workers=True, collate_fn=dict(type='default_collate')
)


def load_config(args: argparse.Namespace, loaders: tuple[str, ...]) -> Config:
    """Read the config file and apply the common arguments.

    Args:
        args: With ``config`` and what :func:`~mmqnet.command_line.arguments.add_arguments` added.
        loaders: Keys of the data loaders that will be used, whose annotation files are checked.

    Raises:
        FileNotFoundError: If the config file or an annotation file does not exist.
        ValueError: If the config file cannot be read, the model's keys are wrong, or its classes
            are not those of the data.

    Example:
        >>> import tempfile
        >>> from mmqnet.command_line import add_arguments
        >>> path = Path(tempfile.mkdtemp(), 'tiny.py')
        >>> _ = path.write_text('lr = 0.1')
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument('config')
        >>> add_arguments(parser)
        >>> config = load_config(parser.parse_args([str(path), '--cfg-options', 'lr=0.2']), ())
        >>> config.lr, config.work_dir
        (0.2, 'work_dirs/tiny')
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not Path(args.config).is_file():
        raise FileNotFoundError(f'the config file {args.config!r} does not exist')
    with naming(f'the config file {args.config!r} cannot be read'):
        config = Config.fromfile(args.config)
    config.launcher = args.launcher
    if args.cfg_options is not None:
        with naming('--cfg-options cannot be applied'):
            config.merge_from_dict(_read_settings(args.cfg_options))
    if config.get('default_scope') == 'mmpretrain':
        _complete_mmpretrain(config)
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs', Path(args.config).stem))
    check_model(config)
    for key in loaders:
        _check_data(config, key)
    return config


def use_mixed_precision(config: Config) -> None:
    """Make the training that a config describes use automatic mixed precision.

    Args:
        config: Changed in place. MMEngine's AmpOptimWrapper refuses CPUs, so there it is bfloat16
            without a loss scaler.

    Raises:
        ValueError: If there is no optimizer wrapper, or one of another type.

    Example:
        >>> config = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))))
        >>> use_mixed_precision(config)
        >>> config.optim_wrapper.type in ('mmqnet.BFloat16OptimWrapper', 'AmpOptimWrapper')
        True
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


def _read_settings(settings: list[str]) -> dict[str, Any]:
    """Return the values of ``--cfg-options`` as MMEngine's tools read them.

    But for the blanks of texts, which those remove: paths may have some.
    """
    found = argparse.Namespace(settings=None)
    DictAction([], 'settings')(argparse.ArgumentParser(), found, settings)
    texts = (setting.split('=', maxsplit=1) for setting in settings)
    found.settings.update(
        (key, text.strip('\'"')) for key, text in texts if isinstance(found.settings[key], str)
    )
    return found.settings


def _complete_mmpretrain(config: Config) -> None:
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if config.get(key):
            config[key] = {**_MMPRETRAIN_LOADER, **config[key]}
            if not config[key].get('num_workers'):
                config[key]['persistent_workers'] = False


def _check_data(config: Config, key: str) -> None:
    """Check that annotation files exist and have the config's classes, before a model is built."""
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
    for where, dataset in _datasets(loader.get('dataset'), f'{key}.dataset'):
        if not dataset.get('dataset') and not dataset.get('datasets'):  # no wrapper
            with naming(f'the annotations of `{where}` cannot be read'):
                check_classes(config, where, dataset)


def _datasets(dataset: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(dataset, list | tuple):
        for i, item in enumerate(dataset):
            yield from _datasets(item, f'{where}[{i}]')
    elif isinstance(dataset, dict):
        yield where, dataset
        yield from _datasets(dataset.get('dataset'), f'{where}.dataset')
        yield from _datasets(dataset.get('datasets'), f'{where}.datasets')

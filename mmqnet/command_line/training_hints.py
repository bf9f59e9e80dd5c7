"""Hints in the log of a training that is about to begin: what may be meant, but is seldom right."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from mmqnet.command_line.model_checks import is_quantized
from mmqnet.engine.optimizers.optim_wrapper_constructor import PARAMETER_ROLES
from mmqnet.engine.unwrap import unwrap

_CONSTRUCTOR = 'DefaultOptimWrapperConstructor'  # MMEngine's, where the config names none


def log_hints(runner: Runner, threads: int | None = None) -> None:
    """Log what a user may want to know before the first iteration.

    Args:
        runner: That of a training, just built.
        threads: How many the tool has chosen; None (default) if it has not.

    Example:
        >>> import tempfile
        >>> model = dict(type='mmqnet.AlexNetBN', channels=[8] * 5, hidden_channels=8)
        >>> config = dict(model=model, work_dir=tempfile.mkdtemp(), log_level='ERROR')
        >>> log_hints(Runner.from_cfg(Config(config)), threads=1)
    """
    for hint in (*_of_rates(runner.cfg), *_of_roles(runner.cfg), *_of_batches(runner)):
        runner.logger.warning(hint)
    if threads is not None:
        runner.logger.info(
            f'Computing with {threads} of {os.cpu_count()} threads, as many as cores were free; '
            'OMP_NUM_THREADS=N chooses another number'
        )


def _of_rates(config: Config) -> Iterator[str]:
    """Yield a hint if a trained model is to be trained at the rate that began with a random one."""
    if not is_quantized(config.get('model')) or not config.get('load_from') or config.get('resume'):
        return
    base = _float_base(config)
    if base is None:
        return
    peak, of_base = _peak_rate(config), _peak_rate(base)
    if peak is not None and peak == of_base and not base.get('load_from'):
        yield (
            f'The peak of the learning rate, {peak:g}, is that of the float training in '
            f'{base.filename!r}, and `load_from` is a trained model: start with a tenth of it'
        )


def _of_roles(config: Config) -> Iterator[str]:
    """Yield a hint if MMEngine's constructor is given settings of roles, which it passes over."""
    wrapper = config.get('optim_wrapper') or {}
    roles = [key for key in PARAMETER_ROLES if key in (wrapper.get('paramwise_cfg') or {})]
    if roles and wrapper.get('constructor', _CONSTRUCTOR) == _CONSTRUCTOR:
        yield (
            f'`optim_wrapper.paramwise_cfg.{roles[0]}` has no effect without '
            "`optim_wrapper.constructor='mmqnet.QuantOptimWrapperConstructor'`"
        )


def _float_base(config: Config) -> Config | None:
    """Return the nearest base file that describes a float model; None if there is none."""
    filename = config.filename
    while filename and filename.endswith('.py') and not Config._is_lazy_import(filename):
        for base in Config._get_base_files(filename):
            path, _ = Config._get_cfg_path(base, filename)
            found = Config.fromfile(path)
            if 'model' in found:
                break
        else:
            return None
        if not is_quantized(found.model):
            return found
        filename = found.filename
    return None


def _peak_rate(config: Config) -> float | None:
    """Return the highest rate of most weights: the schedule's, the role's or the optimizer's."""
    wrapper = config.get('optim_wrapper') or {}
    role = (wrapper.get('paramwise_cfg') or {}).get('quantized') or {}
    rate = (wrapper.get('optimizer') or {}).get('lr')
    for scheduler in _list(config.get('param_scheduler')):
        if 'eta_max' in scheduler:
            rate = scheduler['eta_max']
    if 'lr_mult' in role and isinstance(rate, int | float):
        return rate * role['lr_mult']
    return role.get('lr', rate)


def _of_batches(runner: Runner) -> Iterator[str]:
    """Yield a hint if batch normalization is to learn from single pictures."""
    if (runner.cfg.get('train_dataloader') or {}).get('batch_size') != 1:
        return
    model = unwrap(runner.model)
    model.train()  # as the training does: `norm_eval` takes effect then
    learning = [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training
        if not (isinstance(module, SyncBatchNorm) and runner.distributed)
    ]
    if learning:
        yield (
            f'{len(learning)} batch normalizations, such as {learning[0]!r}, would learn from '
            'single pictures, as `train_dataloader.batch_size` is 1: raise it, or keep their '
            'statistics with `norm_eval=True` of the backbone'
        )


def _list(config: Any) -> Sequence[Any]:
    if not config:
        return []
    return config if isinstance(config, list | tuple) else [config]

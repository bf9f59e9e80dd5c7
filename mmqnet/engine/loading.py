"""Checks of what a runner loads, before the first iteration.

For hooks: :func:`check_file` in ``before_run``, :func:`check_checkpoint` in
``after_load_checkpoint``, which MMEngine calls before the weights reach the model, and
:func:`warn_of_random_weights` in ``before_train``.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from mmqnet.engine.optimizers import check_optimizer_state
from mmqnet.engine.unwrap import unwrap
from mmqnet.models import check_end, check_state, warn_of_differences


def check_file(runner: Runner) -> None:
    """Refuse a local file that the runner is going to load, if it is missing or truncated.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is truncated.
    """
    path = _source(runner)
    is_folder = path is not None and Path(path).is_dir()  # a checkpoint of DeepSpeed
    if path is not None and '://' not in path and not is_folder and not runner._has_loaded:
        check_end(path)


def check_checkpoint(runner: Runner, checkpoint: Any) -> None:
    """Refuse a checkpoint that is not of the runner's model, and warn of one that is in part.

    Raises:
        ValueError: As :func:`check_state`, or if the optimizer's state does not fit the one that
            the runner resumes.
    """
    path = _source(runner) or 'the checkpoint'
    model = unwrap(runner.model)
    check_state(model, checkpoint, path)
    warn_of_differences(model, checkpoint, path)
    if runner._resume:
        _check_progress(checkpoint, path)
        check_optimizer_state(runner.optim_wrapper, checkpoint, path)


def warn_of_random_weights(runner: Runner) -> None:
    """Log a line if a training starts from nothing that has been trained.

    A model counts as trained if the runner has loaded a checkpoint, or if a part of it, such as the
    backbone, has an ``init_cfg`` of the type ``'Pretrained'``.
    """
    if not runner._has_loaded and not _is_pretrained(unwrap(runner.model)):
        print_log(
            'The quantizers are calibrated on random weights: set `load_from` to a checkpoint of '
            'the trained float model, or `default_hooks.calibration.from_scratch=True` to train '
            'from scratch',
            logger='current',
            level=logging.WARNING,
        )


def _check_progress(checkpoint: Any, path: str) -> None:
    """Check that a checkpoint says where its training was."""
    meta, hub = (checkpoint.get(key) for key in ('meta', 'message_hub'))
    progress = [meta.get(key) for key in ('epoch', 'iter')] if isinstance(meta, Mapping) else []
    if not progress or not all(type(number) is int and number >= 0 for number in progress):
        raise ValueError(
            f'`meta` in {path!r} should hold `epoch` and `iter` of the training: resume from a '
            'checkpoint with them, or take it as `load_from` without `resume`'
        )
    keys = hub.get('resumed_keys') if isinstance(hub, Mapping) else None
    if not isinstance(keys, Mapping) or not all(type(flag) is bool for flag in keys.values()):
        raise ValueError(
            f'{path!r} should hold the `message_hub` of a training: take it as `load_from` '
            'without `resume`'
        )


def _source(runner: Runner) -> str | None:
    """Return what the runner loads; without a name it resumes from the latest in its folder."""
    if runner._load_from is None and runner._resume:
        return find_latest_checkpoint(runner.work_dir)
    return runner._load_from


def _is_pretrained(model: nn.Module) -> bool:
    for module in model.modules():
        config = getattr(module, 'init_cfg', None)
        for entry in config if isinstance(config, list | tuple) else [config]:
            kind = entry.get('type') if isinstance(entry, Mapping) else None
            if getattr(kind, '__name__', str(kind)).startswith('Pretrained'):
                return True
    return False

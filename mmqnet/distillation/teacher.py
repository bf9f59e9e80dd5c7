"""The float model that teaches, from the config of the quantized one and a checkpoint."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from mmqnet.models import load_weights, read_checkpoint


def build_teacher(
    config: Mapping[str, Any], path: str, classes: Sequence[str] | None = None
) -> nn.Module:
    """Build the float model of a quantized model's config, with trained weights.

    It evaluates, batch normalization with its running statistics, and has no gradients. Random
    numbers of the caller go on as if nothing had been built.

    Args:
        config: ``model`` of a config file, with the type ``mmqnet.QuantizedModel`` or of a float
            model.
        path: Checkpoint of the float model.
        classes: Names of the classes of the training data, which those that the checkpoint names
            should be. Default None: they are not compared.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it is no checkpoint, or one of another architecture, of a quantized model, or
            for other classes.
    """
    check_teacher(path)
    settings = copy.deepcopy(dict(config))
    if 'quantization' in settings:
        del settings['quantization']
        settings['type'] = settings.pop('architecture')
    with torch.random.fork_rng(devices=[]):
        teacher = MODELS.build(settings)
    try:
        meta = read_checkpoint(path).get('meta') or {}
        load_weights(teacher, path, exact=True)
    except ValueError as error:
        raise ValueError(
            f'the teacher should be a checkpoint of the float {settings["type"]} of this config: '
            f'{error}'
        ) from error
    known = (meta.get('dataset_meta') or {}).get('classes')
    if classes is not None and known is not None and tuple(known) != tuple(classes):
        raise ValueError(
            f'the teacher {path!r} should know the {len(classes)} classes of the training data, '
            f'{_some(classes)}, but knows {len(known)}: {_some(known)}'
        )
    # its running statistics need no other process
    teacher = revert_sync_batchnorm(teacher)
    teacher.eval()
    return teacher.requires_grad_(False)


def check_teacher(path: str) -> None:
    """Check that the teacher's checkpoint exists, before anything is built.

    Args:
        path: A local path, or a URL that MMEngine understands.

    Raises:
        FileNotFoundError: If it is a local path that does not exist.
        ValueError: If it is a folder.
    """
    if '://' in path or Path(path).is_file():
        return
    if Path(path).is_dir():
        raise ValueError(f'the teacher {path!r} should be a file, but is a folder')
    raise FileNotFoundError(f'the teacher {path!r} does not exist')


def _some(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names[:3])) + (', ...' if len(names) > 3 else '')

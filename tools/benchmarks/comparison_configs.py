"""Configs of the trainings that are compared: the demo's detector with a recipe."""

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / 'configs' / 'demo'
RECIPES = ROOT / 'configs' / '_base_' / 'quantization'
FLOAT_CONFIG = DEMO / 'ssd_r18_digits.py'
QUANTIZED_BASE = DEMO / '_base_' / 'ssd_r18_digits_qat.py'
BATCH_NORM = DEMO / '_base_' / 'batch_norm.py'
# One start for all, on whatever machine the next training runs; docs/methods.md tells of it.
START = ROOT / 'docs' / 'experiments' / 'ssd_r18_digits_float.pth'


@functools.cache
def float_config() -> Config:
    """Return the config of the demo's float training."""
    return Config.fromfile(FLOAT_CONFIG)


def annotation_file(cfg_options: Sequence[str], split: str) -> Path:
    """Return the absolute path of a split's annotations."""
    dataset = float_config().test_dataloader.dataset
    given = dict(option.split('=', 1) for option in cfg_options)
    root = given.get('test_dataloader.dataset.data_root', dataset.data_root)
    return ROOT / root / 'annotations' / f'{split}.json'


def paper_temperature(start: float = 10, end: float = 100) -> dict:
    """Return a hook that spreads T over the training.

    The schedule of the paper's recipes is by epochs, of which these trainings have few. The default
    is T of its first ten epochs.
    """
    return dict(type='mmqnet.TemperatureHook', by='progress', weight=dict(start=start, end=end))


def float_model() -> list[str]:
    """Return the lines of a config with the float model, and the hook that all models have."""
    return [
        f'_base_ = {[str(FLOAT_CONFIG), str(BATCH_NORM)]}',
        'default_hooks = dict(**_base_.batch_norm_hooks)',
    ]


def quantized_model(recipe: str) -> list[str]:
    """Return the lines of a config with the model that a recipe quantizes, and its hooks."""
    return [
        f'_base_ = {[str(QUANTIZED_BASE), str(RECIPES / f"{recipe}.py")]}',
        'model = dict(quantization=_base_.quantization)',
        'default_hooks = dict(**_base_.quantization_hooks)',
        'default_hooks.update(_base_.digits_hooks)',
        'default_hooks.update(_base_.batch_norm_hooks)',
        'default_hooks.update(gap=None)',
    ]


def digest(what: Any) -> str:
    """Return a short digest of what json can hold."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]


@functools.cache
def recipe_digest(recipe: str | None) -> str:
    """Return a digest of what a recipe says, with all that it inherits; None: ``''``."""
    return '' if recipe is None else digest(Config.fromfile(RECIPES / f'{recipe}.py').to_dict())


def detector_digest() -> str:
    """Return a digest of what all trainings share: float model, data, schedule, hooks."""
    trained_on = Config.fromstring('\n'.join(float_model()), '.py')
    return digest([trained_on.to_dict(), Config.fromfile(QUANTIZED_BASE).to_dict()])


def taught_by(teacher: Path) -> str:
    """Return a line of a config: the float model of a checkpoint teaches the quantized one."""
    hook = dict(type='mmqnet.DistillationHook', teacher=str(teacher))
    return f'default_hooks.update(distillation={hook})'


def config_text(
    lines: Iterable[str],
    checkpoint: Path | None,
    epochs: int,
    seed: int,
    rate: float,
    val_interval: int | None = None,
) -> str:
    """Return a config.

    Args:
        lines: Model and hooks.
        checkpoint: What the training begins with; None: random weights.
        epochs: Length of the training, one cycle of the rate.
        seed: Of the training.
        rate: The highest learning rate.
        val_interval: Epochs between validations; None: no validation.
    """
    interval = epochs + 1 if val_interval is None else val_interval
    return '\n'.join(
        [
            *lines,
            "default_hooks.update(checkpoint=dict(type='mmqnet.CheckpointHook', max_keep_ckpts=1))",
            f'train_cfg = dict(max_epochs={epochs}, val_interval={interval})',
            f'optim_wrapper = dict(optimizer=dict(lr={rate}))',
            'param_scheduler = _base_.param_scheduler',
            f'param_scheduler[0].update(eta_max={rate}, pct_start=0.1, total_steps={epochs})',
            f'load_from = {checkpoint and str(checkpoint)!r}',
            f'randomness = dict(seed={seed})',
            '',
        ]
    )

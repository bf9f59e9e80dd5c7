"""Damaged checkpoints: bytes flipped, cut, keys lost, shapes changed, numbers that are none."""

import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from fuzzing.mutations import damage_file, mutated
from fuzzing.toy import make_runner, model_config, pictures
from mmqnet.command_line import check_checkpoint, resume, safe_loading, train
from mmqnet.export.packed import write_packed
from mmqnet.models import build_model, check_calibrated, load_weights

_HOOKS = dict(
    calibration=dict(type='mmqnet.CalibrationHook', num_samples=4, from_scratch=True),
    temperature=dict(type='mmqnet.TemperatureHook', weight=dict(slope=10)),
    checkpoint=dict(type='mmqnet.CheckpointHook'),
    randomness=dict(type='mmqnet.RandomnessHook'),
)


def prepare(folder: Path) -> Callable[[random.Random], Callable[[Path], None]]:
    """Train and save checkpoints; return what makes a case of them."""
    make_runner(folder / 'run', 1, _HOOKS).train()
    whole = folder / 'run/epoch_1.pth'
    config = Config(dict(model=model_config()))
    model = _load(config, whole)
    packed = folder / 'packed.pth'
    write_packed(model, config, str(packed))
    runner = make_runner(folder / 'resumed', 2, _HOOKS)

    def case(rng: random.Random) -> Callable[[Path], None]:
        source = rng.choice((whole, whole, packed))
        resumes = source is whole and rng.random() < 0.5
        return lambda target: _try(source, target, rng, runner if resumes else config)

    return case


def _try(source: Path, folder: Path, rng: random.Random, reader: Runner | Config) -> None:
    path = folder / 'epoch_1.pth'
    if rng.random() < 0.5:
        shutil.copy(source, path)
        damage_file(path, rng)
    else:
        with safe_loading():
            torch.save(_changed(torch.load(source), rng), path)
    with safe_loading():
        if isinstance(reader, Runner):
            _resume(reader, path)
        else:
            model = _load(reader, path)
            check_calibrated(model, str(path))
            model(pictures())
            write_packed(model, reader, str(folder / 'packed.pth'))


def _resume(runner: Runner, path: Path) -> None:
    config = Config(dict(work_dir=str(path.parent)))
    resume(config, str(path))
    runner._load_from, runner._resume = config.load_from, True
    train(runner)


def _load(config: Config, path: Path) -> Any:
    check_checkpoint(str(path))
    model = build_model(config)
    load_weights(model, str(path))
    return model


def _changed(checkpoint: dict[str, Any], rng: random.Random) -> Any:
    """Return a checkpoint whose entries are other ones; a class of our own is never saved."""
    part = rng.choice((*checkpoint, 'state_dict', 'state_dict', 'state_dict'))
    if part != 'state_dict' or rng.random() < 0.2:
        checkpoint[part] = mutated({part: checkpoint[part]}, rng, 1).get(part)
        return checkpoint
    state = checkpoint['state_dict']
    for _ in range(rng.choice((1, 1, 3))):
        key = rng.choice(list(state))
        rng.choice((_lose, _lose, _reshape, _poison, _poison, _retype))(state, key, rng)
    return checkpoint


def _lose(state: dict[str, Any], key: str, rng: random.Random) -> None:
    value = state.pop(key)
    if rng.random() < 0.3:
        state[rng.choice(('é', key.upper(), f'x.{key}', f'{key}.weight'))] = value


def _reshape(state: dict[str, Any], key: str, rng: random.Random) -> None:
    value = state[key]
    if isinstance(value, torch.Tensor):
        more = torch.stack([value, value])
        state[key] = rng.choice((more, value.flatten()[:1], value.flatten()[:0], value.flatten()))


def _poison(state: dict[str, Any], key: str, rng: random.Random) -> None:
    value = state[key]
    if isinstance(value, torch.Tensor) and value.numel():
        number = rng.choice((math.nan, math.inf, -math.inf, 1e38, -1.0, 0.0))
        poisoned = value.clone().double().flatten()
        poisoned[rng.randrange(len(poisoned)) :] = number
        state[key] = (
            poisoned.nan_to_num(7, 7, -7).to(value.dtype).view(value.shape)
            if (not value.is_floating_point())
            else poisoned.to(value.dtype).view(value.shape)
        )


def _retype(state: dict[str, Any], key: str, rng: random.Random) -> None:
    value = state[key]
    if isinstance(value, torch.Tensor):
        types = (torch.float16, torch.int64, torch.bool, torch.complex64)
        state[key] = rng.choice((*(value.to(t) for t in types), value.tolist(), None, 'text'))

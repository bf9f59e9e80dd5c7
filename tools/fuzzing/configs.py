"""Mutated `quantization` dicts, hooks and files of recipes."""

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fuzzing.mutations import damage_file, mutated
from fuzzing.toy import make_runner, model_config, pictures
from mmqnet.calibration import calibrate
from mmqnet.command_line import load_config, train
from mmqnet.failures import naming
from mmqnet.models import build_model

RECIPES = Path(__file__).parents[2] / 'configs/_base_/quantization'
# They evaluate, for which the toy has no data.
_UNUSED = ('gap',)


def prepare(folder: Path) -> Callable[[random.Random], Callable[[Path], None]]:
    """Read the recipes and build a runner; return what makes a case of them."""
    recipes = {}
    for path in sorted(RECIPES.glob('*.py')):
        recipe = Config.fromfile(path).to_dict()
        hooks = {k: v for k, v in recipe['quantization_hooks'].items() if k not in _UNUSED}
        hooks['calibration']['num_samples'] = 4
        hooks['calibration']['from_scratch'] = True
        recipes[path] = recipe['quantization'], hooks
    runner = make_runner(folder / 'run', 1, {})

    def case(rng: random.Random) -> Callable[[Path], None]:
        path = rng.choice(list(recipes))
        quantization, hooks = recipes[path]
        changes = rng.choice((1, 1, 2, 4))
        kind = rng.choice(('quantization', 'quantization', 'hooks', 'file'))
        if kind == 'quantization':
            new = mutated(dict(quantization=quantization), rng, changes)
            return lambda _: _use(new.get('quantization') if isinstance(new, dict) else new)
        if kind == 'hooks':
            new_hooks = mutated(hooks, rng, changes)
            return lambda _: _train(runner, new_hooks)
        return lambda target: _read(path, target, rng)

    return case


def _use(quantization: Any) -> None:
    """Build, calibrate and evaluate a model."""
    with naming('the config cannot be built'):
        config = Config(dict(model=model_config(quantization)))
    model = build_model(config)
    calibrate(model, [pictures()], model)
    model.eval()
    model(pictures())


def _train(runner: Any, hooks: Any) -> None:
    with naming('the config cannot be built'):
        runner.cfg.default_hooks = hooks
        runner._hooks = []
        runner.register_hooks(runner.cfg.default_hooks, None)
    train(runner)


def _read(path: Path, folder: Path, rng: random.Random) -> None:
    """Read a damaged copy of a recipe's file, with those that it inherits."""
    for base in path.parent.glob('*.py'):
        (folder / base.name).write_bytes(base.read_bytes())
    damage_file(folder / path.name, rng)
    arguments = dict(launcher='none', local_rank=0, cfg_options=None, work_dir=None)
    config = load_config(argparse.Namespace(config=str(folder / path.name), **arguments), ())
    _use(config.get('quantization'))

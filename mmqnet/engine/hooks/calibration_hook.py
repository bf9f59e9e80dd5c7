"""Calibrates the quantizers before the first iteration."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from mmqnet.calibration import calibrate
from mmqnet.engine.unwrap import unwrap
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class CalibrationHook(Hook):
    """Initialises scales and thresholds once, from the loaded weights and random training samples.

    A checkpoint carries the result: a resumed run, or one from a quantized checkpoint, skips it.
    The training's own order of samples and random numbers stay untouched.

    Args:
        num_samples (int): Training samples for the activations; default 1000, as in the paper.
        seed (int): Of their choice. Default 0.

    Raises:
        ValueError: If ``num_samples`` is not positive.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, num_samples: int = 1000, seed: int = 0) -> None:
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise ValueError(
                '`CalibrationHook.num_samples` should be a positive integer, '
                f'but got {num_samples!r}'
            )
        self._num_samples = num_samples
        self._seed = seed

    def before_train(self, runner: Runner) -> None:
        """Calibrates whatever has not been calibrated; the weights have been loaded by now."""
        model: Any = unwrap(runner.model)

        def forward(batch: Any) -> None:
            data = model.data_preprocessor(batch, False)
            model(**data, mode='tensor') if isinstance(data, dict) else model(*data, mode='tensor')

        with _random_state_kept():
            loader = self._loader(runner.train_dataloader)
            done = calibrate(model, loader, forward, _progress_bar)
        if done:
            runner.logger.info(f'Calibrated {len(done)} quantizers')

    def _loader(self, train: DataLoader[Any]) -> DataLoader[Any]:
        """Loader of random training samples, this process's share of them."""
        generator = np.random.default_rng(self._seed)
        order = generator.permutation(len(train.dataset))[: self._num_samples]  # type: ignore[arg-type]
        share = order[get_rank() :: get_world_size()]
        return DataLoader(
            Subset(train.dataset, share.tolist()),
            batch_size=train.batch_size or train.batch_sampler.batch_size,  # type: ignore[union-attr]
            num_workers=train.num_workers,
            collate_fn=train.collate_fn,
            worker_init_fn=train.worker_init_fn,
        )


def _progress_bar(batches: Iterable[Any]) -> Iterable[Any]:
    return tqdm(batches, desc='Calibrating', unit='batch', disable=get_rank() != 0)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 -- pipelines use it
    with torch.random.fork_rng():
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002

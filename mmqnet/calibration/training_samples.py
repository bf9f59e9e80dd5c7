"""Random training samples, apart from the training's own order of samples and random numbers."""

import functools
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from mmqnet.calibration.batch_norm import reestimate_batch_norm
from mmqnet.calibration.calibrate import calibrate, collect_samples
from mmqnet.calibration.matched_outputs import match_outputs
from mmqnet.quantizers import Sample

_Result = TypeVar('_Result')


def calibrate_on_samples(
    model: nn.Module, train: DataLoader[Any], num_samples: int = 1000, seed: int = 0
) -> list[str]:
    """Calibrate on random training samples, see :func:`calibrate`.

    The same weights and arguments give the same bits, in a training and without one.

    Args:
        model: A converted model of MMDetection or MMPretrain, not wrapped.
        train: The training's data loader, whose samples, batch size and collation are used.
        num_samples: How many samples, of all processes together. Default 1000, as in the paper.
        seed: Of their choice and of their augmentation. Default 0.

    Returns:
        list[str]: Names of the quantizers that were initialised; empty if none was left to be.
    """
    return _on_samples(calibrate, 'Calibrating', model, train, num_samples, seed)


def collect_on_samples(
    model: nn.Module, train: DataLoader[Any], num_samples: int = 1000, seed: int = 0
) -> dict[str, Sample]:
    """Collect on random training samples what quantizers are fitted to, :func:`collect_samples`.

    Arguments as for :func:`calibrate_on_samples`, which fits them to the very same.

    Returns:
        dict[str, Sample]: By the names of the quantizers.
    """
    return _on_samples(collect_samples, 'Calibrating', model, train, num_samples, seed)


def match_on_samples(
    model: nn.Module,
    train: DataLoader[Any],
    names: Collection[str],
    num_samples: int = 1000,
    seed: int = 0,
) -> list[str]:
    """Match the outputs of layers on random training samples, see :func:`match_outputs`.

    Args:
        model: As for :func:`calibrate_on_samples`, calibrated.
        train: As there.
        names: Quantizers that have just been fitted.
        num_samples: As there.
        seed: As there.

    Returns:
        list[str]: Names of the layers whose outputs match now.
    """
    match = functools.partial(match_outputs, names=names)
    return _on_samples(match, 'Matching outputs', model, train, num_samples, seed)


def reestimate_on_samples(
    model: nn.Module, train: DataLoader[Any], num_samples: int = 1000, seed: int = 0
) -> list[str]:
    """Recompute batch statistics on random training samples, see :func:`reestimate_batch_norm`.

    Args:
        model: As for :func:`calibrate_on_samples`, calibrated.
        train: As there.
        num_samples: As there; what is left of them after the last whole batch is not used.
        seed: As there.

    Returns:
        list[str]: Names of the batch normalizations that have new statistics.
    """
    work, title = reestimate_batch_norm, 'Re-estimating'
    return _on_samples(work, title, model, train, num_samples, seed, whole_batches=True)


def _on_samples(
    work: Callable[..., _Result],
    title: str,
    model: nn.Module,
    train: DataLoader[Any],
    num_samples: int,
    seed: int,
    whole_batches: bool = False,
) -> _Result:
    """Do work on a model with random training samples, and show its progress under a title."""
    with random_state_of(seed):
        return work(
            model,
            batches=sample_loader(train, num_samples, seed, whole_batches),
            forward=functools.partial(run_model, model),
            progress_bar=_progress_bar(title),
        )


def sample_loader(
    train: DataLoader[Any], num_samples: int, seed: int = 0, whole_batches: bool = False
) -> DataLoader[Any]:
    """Return a loader of random training samples, this process's share of them.

    Args:
        train: The training's data loader.
        num_samples: How many samples, of all processes together; all if there are fewer.
        seed: Of their choice. Default 0.
        whole_batches: Whether all batches are to be of one size, and equally many on every
            process. Default False.
    """
    order = np.random.default_rng(seed).permutation(len(train.dataset))[:num_samples]  # type: ignore[arg-type]
    if whole_batches:
        order = order[: len(order) - len(order) % get_world_size()]
    share = order[get_rank() :: get_world_size()]
    init = train.worker_init_fn
    if isinstance(init, functools.partial) and 'seed' in init.keywords:
        init = functools.partial(init, seed=seed)  # MMEngine's, which knows the training's seed
    return DataLoader(
        Subset(train.dataset, share.tolist()),
        batch_size=max(1, min(batch_size_of(train), len(share))),
        num_workers=train.num_workers,
        collate_fn=train.collate_fn,
        worker_init_fn=init,
        drop_last=whole_batches,
    )


def batch_size_of(train: DataLoader[Any]) -> int:
    """Return how many samples the largest batch of a training has, 1 where nothing says it."""
    size: Any = train.batch_size or getattr(train.batch_sampler, 'batch_size', 1)
    # MultiDataAspectRatioBatchSampler: each batch is of one of the data sets, at its own size
    return size if isinstance(size, int) else max(size)


def batch_of(train: DataLoader[Any], samples: Sequence[int], seed: int = 0) -> Any:
    """Return some training samples as a batch, augmented with random numbers of ``seed``.

    Args:
        train: The training's data loader.
        samples: Their numbers in the data set.
        seed: Of the augmentation. Default 0.
    """
    assert train.collate_fn is not None
    with random_state_of(seed):
        return train.collate_fn([train.dataset[number] for number in samples])


def run_model(model: nn.Module, batch: Any, mode: str = 'tensor') -> Any:
    """Run a model of MMDetection or MMPretrain on a batch.

    Args:
        model: The model.
        batch: As its data loader gives it.
        mode: ``'tensor'`` (default) for its raw outputs, ``'loss'`` for the dict of its losses.
    """
    data = model.data_preprocessor(batch, False)  # type: ignore[operator]
    return model(**data, mode=mode) if isinstance(data, dict) else model(*data, mode=mode)


def _progress_bar(title: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    return functools.partial(tqdm, desc=title, unit='batch', disable=get_rank() != 0)


@contextmanager
def random_state_of(seed: int) -> Iterator[None]:
    """Draw random numbers from ``seed`` within the block, and go on as before behind it."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 -- pipelines use it
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        random.seed(seed + get_rank())
        np.random.seed(seed + get_rank())  # noqa: NPY002
        torch.default_generator.manual_seed(seed + get_rank())
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002

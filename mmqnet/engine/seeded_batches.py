"""Batches of a training by iterations, each a function of its number alone."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, Dataset

# Arguments of a DataLoader that it keeps as attributes of the same name.
_KEPT = (
    'num_workers',
    'collate_fn',
    'pin_memory',
    'timeout',
    'worker_init_fn',
    'multiprocessing_context',
    'prefetch_factor',
    'persistent_workers',
)


class SeededBatches:
    """The batches of a data loader without end, from any one on.

    Before a sample is loaded, Python, NumPy and torch are seeded with the run's seed, the number of
    its batch and its place in the batch. So it does not matter where a run was resumed, how many
    workers load, nor how far ahead they are.

    Args:
        loader: Whose samples, workers and collation are used; its own sampler is not.
        batch_sampler: Yields lists of indices, as in a run that has just begun.
        seed: Of the run.
        start: Number of the first batch; those before it are not loaded.
        placeholders: How often None is returned before that. Default 0. A loop of MMEngine up to
            0.10.7 takes the batches of the iterations that are done and drops them.

    Raises:
        ValueError: If the sampler yields no batch at all.

    Example:
        >>> from torch.utils.data import SequentialSampler
        >>> loader = DataLoader([0.0, 1.0, 2.0], batch_size=2)
        >>> batches = SeededBatches(loader, loader.batch_sampler, seed=0, start=1)
        >>> [next(batches).tolist() for _ in range(3)]
        [[2.0], [0.0, 1.0], [2.0]]
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        batch_sampler: Any,
        seed: int,
        start: int = 0,
        placeholders: int = 0,
    ) -> None:
        self._placeholders = placeholders
        settings = {name: getattr(loader, name) for name in _KEPT}
        self._batches = iter(
            DataLoader(
                _SeededSamples(loader.dataset, seed),
                batch_sampler=_NumberedBatches(batch_sampler, start),
                **settings,
            )
        )

    def __iter__(self) -> Iterator[Any]:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Return the next batch."""
        if self._placeholders:
            self._placeholders -= 1
            return None
        return next(self._batches)

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: a loop of OneDL's MMEngine skips what is done, and this starts behind it."""


class _Batch(list[int]):
    """Indices of the samples of one batch, with its number."""

    number: int


class _NumberedBatches:
    """The batches of a sampler, pass after pass, with their numbers."""

    def __init__(self, batch_sampler: Any, start: int) -> None:
        self._batch_sampler = batch_sampler
        self._start = start

    def __iter__(self) -> Iterator[_Batch]:
        for number, indices in enumerate(self._passes()):
            if number >= self._start:
                batch = _Batch(indices)
                batch.number = number
                yield batch

    def _passes(self) -> Iterator[list[int]]:
        sampler = getattr(self._batch_sampler, 'sampler', self._batch_sampler)
        done, epoch = -1, 0
        while done:  # a pass without a batch would never end
            done = 0
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
            for done, indices in enumerate(self._batch_sampler, 1):  # noqa: B007
                yield indices
            epoch += 1
        raise ValueError('`train_dataloader` has no batch: it has fewer samples than `batch_size`')


class _SeededSamples(Dataset[Any]):
    """A data set that is seeded before each sample."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._rank = get_rank()  # workers do not know it

    def __getitems__(self, batch: _Batch) -> list[Any]:
        """Load the samples of a batch, in its order; torch's fetchers prefer this method."""
        return [self._load(batch.number, place, index) for place, index in enumerate(batch)]

    def _load(self, number: int, place: int, index: int) -> Any:
        entropy = [self._seed, number, place, self._rank]
        words = np.random.SeedSequence(entropy).generate_state(4)
        random.seed(int(words[0]))
        np.random.seed(words[1])  # noqa: NPY002 -- pipelines use it
        torch.default_generator.manual_seed(int(words[2]) << 32 | int(words[3]))
        return self._dataset[index]

"""How far a runner is, in passes over the data and as a share of the training."""

from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import EpochBasedTrainLoop, Runner


def progress_of(runner: Runner) -> float:
    """Share of the training that is done, 0..1; at the last iteration it is just below 1."""
    return runner.iter / max(1, runner.max_iters)


def epochs_of(runner: Runner) -> float:
    """Return the passes over the data so far, of all processes together.

    What counts as one pass depends on the sampler:

    - Where the processes share one pass, as with ``DefaultSampler`` and all other finite samplers
      of MMEngine, MMDetection and MMPretrain, it is the ``len(train_dataloader)`` iterations after
      which the runner's epoch ends, whatever the sampler leaves out or draws twice.
    - Where the sampler of each process has the length of the whole set (``InfiniteSampler``,
      ``MultiSourceSampler``, ``GroupMultiSourceSampler``, with or without a batch sampler such as
      ``AspectRatioBatchSampler``), it is the iterations in which all processes together take as
      many samples as the set has; that need not be a whole number.

    A repeated data set counts as often as it is repeated: ``RepeatDataset(times=10)`` makes ten
    passes of one.
    """
    repeats = _repeats(runner.train_dataloader.dataset)
    return runner.iter * repeats / _iterations_of_a_pass(runner)


def _iterations_of_a_pass(runner: Runner) -> float:
    loader, world_size = runner.train_dataloader, get_world_size()
    dataset: Any = loader.dataset
    if _is_shared(_sampler(loader), len(dataset)):
        return len(loader)
    batch_size = getattr(loader.batch_sampler, 'batch_size', None)
    # Where the loop ends an epoch the sampler is finite: each process takes the whole set, and its
    # last batch may be smaller than the others.
    if isinstance(runner.train_loop, EpochBasedTrainLoop) or not isinstance(batch_size, int):
        return len(loader) / world_size
    return len(dataset) / (batch_size * world_size)


def _sampler(loader: Any) -> Any:
    """Return the sampler that tells the processes apart; batch samplers may wrap it."""
    # beside a batch sampler of the config, `loader.sampler` is torch's default and unused
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    while hasattr(sampler, 'sampler') and not hasattr(sampler, 'total_size'):
        sampler = sampler.sampler
    return sampler


def _is_shared(sampler: Any, num_samples: int) -> bool:
    """Whether the processes share what the sampler draws in one pass.

    Samplers that do, from torch's DistributedSampler on, call the size of the pass `total_size`.
    One that does not follow them is known by its length, unless there is a single process. The
    length alone would not do: a sampler of video frames is longer than the set of videos.
    """
    return hasattr(sampler, 'total_size') or len(sampler) < num_samples


def _repeats(dataset: Any) -> int:
    """How often one pass of the loader goes over the data; `RepeatDataset` may lie inside."""
    inner = getattr(dataset, 'dataset', None)
    if inner is None:
        return 1
    return getattr(dataset, 'times', 1) * _repeats(inner)

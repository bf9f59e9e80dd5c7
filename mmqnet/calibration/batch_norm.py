"""Batch statistics that fit the hard quantization functions."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmengine.dist import all_reduce_params, is_distributed
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmqnet.calibration.modes import modes_kept
from mmqnet.calibration.processes import together

_STATISTICS = ('running_mean', 'running_var')
_COUNT = 'num_batches_tracked'


@torch.no_grad()
def reestimate_batch_norm(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    progress_bar: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[str]:
    """Replace running means and variances by their average over batches, with hard functions.

    A training gathers them with soft functions, and while the weights move; evaluation then uses
    them with the hard ones. Here everything evaluates, quantizers and dropout included, and only
    batch normalization takes the statistics of the batch, as in training. ``update_bn`` of torch
    and the PreciseBNHook of MMPretrain run the whole model in training mode: with soft functions.

    Frozen batch normalization (``norm_eval``, ``frozen_stages``) and what no batch reaches keep
    their statistics, and nothing else of the model changes. On several processes, each of which
    brings batches of its own, all end with the average over all of them; if one fails, all fail,
    with SyncBN after a timeout.

    Args:
        model: Any model, calibrated.
        batches: Training samples. Each batch counts the same; with SyncBN, every process has to
            bring equally many.
        forward: Runs the model on one batch.
        progress_bar: Wraps the batches, to show how far it is.

    Returns:
        list[str]: Names of the batch normalizations that have new statistics.

    Raises:
        ValueError: As :func:`learning_batch_norms`; or if there is no batch, or statistics are
            not finite. The model is then as it was before.
    """
    norms = learning_batch_norms(model)
    before = {name: _copies(norm) for name, norm in norms.items()}
    reached: list[str] = []
    try:
        with _failing_together(norms.values()), _collecting(model, norms.values()):
            for batch in progress_bar(batches):
                forward(batch)
        if is_distributed():
            _merge_processes(norms.values())
        reached = _find_reached(norms)
    finally:
        for name, norm in norms.items():
            for key, value in before[name].items():
                if key == _COUNT or name not in reached:
                    norm.get_buffer(key).copy_(value)
    total = len(_batch_norms(model))
    print_log(f'Re-estimated {len(reached)} of {total} batch normalizations', logger='current')
    return reached


def learning_batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return by name the batch normalizations whose statistics a training of the model updates.

    Raises:
        ValueError: If there is none, or one of a kind whose statistics cannot be averaged.
    """
    norms = _batch_norms(model)
    if not norms:
        raise ValueError(
            f'{type(model).__name__} has no batch normalization, so no batch statistics can be '
            're-estimated'
        )
    for name, norm in norms.items():
        if not isinstance(norm, _BatchNorm):
            raise ValueError(
                f'the statistics of `{name}` ({type(norm).__name__}) cannot be re-estimated: only '
                "those of torch's BatchNorm and SyncBatchNorm ('BN', 'SyncBN') can"
            )
    with modes_kept(model):
        model.train()  # a backbone puts what is frozen into evaluation mode
        learning = {
            name: norm
            for name, norm in norms.items()
            if isinstance(norm, _BatchNorm) and norm.training
        }
    if not learning:
        raise ValueError(
            f'all {len(norms)} batch normalizations of {type(model).__name__} are frozen, so their '
            'statistics stay as they are: set `norm_eval=False` of the backbone (and fewer '
            '`frozen_stages`) to re-estimate them'
        )
    return learning


def _batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return what keeps running statistics."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, 'running_mean', None), Tensor)
    }


def _failing_together(norms: Iterable[_BatchNorm]) -> AbstractContextManager[None]:
    if any(isinstance(norm, nn.SyncBatchNorm) for norm in norms):
        return nullcontext()  # their forward passes communicate
    return together('the re-estimation of batch statistics')


@contextmanager
def _collecting(model: nn.Module, norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Average the statistics of batches in ``norms``, and evaluate all else, within the block."""
    momenta = {norm: norm.momentum for norm in norms}
    with modes_kept(model):
        model.eval()
        for norm in momenta:
            norm.reset_running_stats()
            norm.training = True
            norm.momentum = None  # the plain average over all batches
        try:
            yield
        finally:
            for norm, momentum in momenta.items():
                norm.momentum = momentum


def _merge_processes(norms: Iterable[_BatchNorm]) -> None:
    """Average over the batches of all processes, which end with the same bits."""
    found = [_copies(norm) for norm in norms]
    counts = [copies.pop(_COUNT).double() for copies in found]
    sums = [
        {key: value.double() * count for key, value in copies.items()}
        for copies, count in zip(found, counts, strict=True)
    ]
    all_reduce_params([*counts, *(value for of_norm in sums for value in of_norm.values())])
    for norm, of_norm, count in zip(norms, sums, counts, strict=True):
        norm.get_buffer(_COUNT).copy_(count)
        for key, value in of_norm.items():
            norm.get_buffer(key).copy_(value / count.clamp(min=1))


def _find_reached(norms: dict[str, _BatchNorm]) -> list[str]:
    reached = [name for name, norm in norms.items() if norm.get_buffer(_COUNT).item()]
    if not reached:
        raise ValueError('no training sample has reached a batch normalization: are there any?')
    for name in reached:
        if not all(value.isfinite().all() for value in _copies(norms[name]).values()):
            raise ValueError(
                f'the input of `{name}` holds NaN or infinite values when batch statistics are '
                're-estimated: check the checkpoint and the data'
            )
    return reached


def _copies(norm: _BatchNorm) -> dict[str, Tensor]:
    return {key: norm.get_buffer(key).clone() for key in (*_STATISTICS, _COUNT)}

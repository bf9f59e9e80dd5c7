"""The two ways of measuring sensitivities, sample by sample or quantizer by quantizer."""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmqnet.calibration import batch_of, batch_size_of, modes_kept, random_state_of, run_model
from mmqnet.sensitivity.alternatives import Alternatives
from mmqnet.sensitivity.direct import replaced
from mmqnet.sensitivity.fast import estimate_errors
from mmqnet.sensitivity.record import Sensitivities


class TrainingLoss:
    """The loss of random training samples.

    They pass the training's pipeline, whose boxes are those of the picture that it gives:
    MMDetection's test pipelines load boxes after they have resized the picture.

    Args:
        model: A model of MMDetection or MMPretrain, not wrapped.
        train: The training's data loader.
        num_samples: How many samples; all if there are fewer.
        seed: Of their choice and of their augmentation. Default 0.
    """

    def __init__(
        self, model: nn.Module, train: DataLoader[Any], num_samples: int, seed: int = 0
    ) -> None:
        self._model, self._train, self._seed = model, train, seed
        size = len(train.dataset)  # type: ignore[arg-type]
        self._order = np.random.default_rng(seed).permutation(size)[:num_samples].tolist()
        self._batches: list[Any] = []

    def __len__(self) -> int:
        return len(self._order)

    def of_sample(self, position: int) -> Tensor:
        """Return the loss of one of the samples, the same at each call."""
        batch = batch_of(self._train, self._order[position : position + 1], self._seed + position)
        return self._of_batch(batch, position)

    @torch.no_grad()
    def mean(self) -> float:
        """Return the mean loss of all samples, in batches as large as the training's."""
        size = batch_size_of(self._train)
        if not self._batches:
            starts = range(0, len(self._order), size)
            self._batches = [
                batch_of(self._train, self._order[start : start + size], self._seed + start)
                for start in starts
            ]
        losses = [self._of_batch(batch, i).item() for i, batch in enumerate(self._batches)]
        shares = [min(size, len(self) - size * i) / len(self) for i in range(len(losses))]
        return sum(loss * share for loss, share in zip(losses, shares, strict=True))

    def _of_batch(self, batch: Any, position: int) -> Tensor:
        # heads may draw samples
        with random_state_of(self._seed + position), _losses_as_in_training(self._model):
            losses = run_model(self._model, batch, 'loss')
        return self._model.parse_losses(losses)[0]  # type: ignore[operator]


@contextmanager
def _losses_as_in_training(model: nn.Module) -> Iterator[None]:
    """Let a detector and its heads return what their losses take; the layers go on evaluating.

    Some return something else in evaluation: FCOS multiplies its boxes by the strides.
    """
    heads = (getattr(model, name, None) for name in ('rpn_head', 'bbox_head'))
    with modes_kept(model):
        for part in (model, *heads):
            if part is not None:
                part.training = True
        yield


def measure_fast(
    record: Sensitivities,
    model: nn.Module,
    alternatives: Alternatives,
    loss: TrainingLoss,
    path: Path,
) -> None:
    """Estimate the errors from the gradients of the samples that are left.

    Args:
        record: Filled in place, and written to ``path`` after each sample.
        model: The converted model, in float (:func:`quantizers_off`).
        alternatives: Quantizers of other bits.
        loss: Of the samples.
        path: Its file.

    Raises:
        ValueError: If a gradient is not finite.
    """
    left = range(record.samples_done, len(loss))
    for position in tqdm(left, 'Gradients', len(loss), initial=left.start, unit='sample'):
        of_sample = functools.partial(loss.of_sample, position)
        record.add_sample(estimate_errors(model, alternatives, of_sample))
        record.save(path)


def measure_direct(
    record: Sensitivities,
    model: nn.Module,
    alternatives: Alternatives,
    evaluate: Callable[[], float],
    path: Path,
) -> None:
    """Evaluate the model with one quantizer alone, for each that is left.

    Args:
        record: Filled in place, and written to ``path`` after each evaluation.
        model: The converted model, in float (:func:`quantizers_off`).
        alternatives: Quantizers of other bits.
        evaluate: Returns the loss, or the metric, of the model as it is.
        path: Its file.

    Raises:
        ValueError: If the loss, or the metric, is not finite.
    """
    measure = record.settings['measure']
    sign = 1 if measure == 'loss' else -1
    if record.reference is None:
        where = 'of the float model'
        record.reference = _finite(evaluate(), measure, where)
        record.save(path)
    for name, bits in tqdm(record.missing(), 'Evaluations', unit='evaluation'):
        with replaced(model, name, alternatives[name][bits]):
            found = _finite(evaluate(), measure, f'with `{name}` of {bits} bits alone')
        record.errors[name][bits] = sign * (found - record.reference)
        record.save(path)


def _finite(value: float, measure: str, where: str) -> float:
    if not math.isfinite(value):
        raise ValueError(
            f'the {measure} {where} should be finite, but is {value}: check the float checkpoint '
            'and the data'
        )
    return value

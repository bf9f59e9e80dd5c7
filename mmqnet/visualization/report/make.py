"""From a model, its data and its log to the report."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mmcv
from mmengine.config import Config
from torch import nn

from mmqnet.models import read_checkpoint
from mmqnet.quantizers import quantizers_of
from mmqnet.version import __version__
from mmqnet.visualization.detections import draw_side_by_side
from mmqnet.visualization.gap import draw_gap, read_gap
from mmqnet.visualization.report.facts import activation_facts, weight_facts
from mmqnet.visualization.report.page import Picture, Report, report_page

_SHOWN = 4  # pictures with detections
_SCORE = 0.5


def check_page_path(path: str | Path) -> None:
    """Check that a report can be written to a path, before any work is done.

    Raises:
        ValueError: If it does not end in ``.html``, or is a folder.

    Example:
        >>> check_page_path('report.pdf')
        Traceback (most recent call last):
            ...
        ValueError: a report should end in '.html', but got 'report.pdf'
    """
    if Path(path).suffix.lower() != '.html':
        raise ValueError(f"a report should end in '.html', but got {str(path)!r}")
    if Path(path).is_dir():
        raise ValueError(f'a report should be a file, but {str(path)!r} is a folder')


def make_report(
    model: Any,
    config: Config,
    checkpoint: str,
    batches: Iterable[Any] = (),
    log: str | None = None,
    errors: Mapping[str, Mapping[int, float | None]] | None = None,
) -> str:
    """Return the report of a model as an HTML page that needs no other file.

    Args:
        model: The quantized model with the weights of the checkpoint, calibrated.
        config: Its config, for names.
        checkpoint: Path of the checkpoint.
        batches: Validation images, for activations and detections. Default: none.
        log: Log of the training, or its work dir. Default: the folder of the checkpoint, where a
            log may be or not.
        errors: From quantizers and their bits to what they cost alone, as
            :class:`Sensitivities` has them. Default: none.

    Raises:
        FileNotFoundError: If a log is named and does not exist.
        ValueError: If it holds no gap.
    """
    results: list[Any] = []

    def forward(batch: Any) -> None:
        results.extend(model.test_step(batch))

    activations = activation_facts(model, batches, forward)
    name = Path(config.filename).name if config.filename else type(model).__name__
    return report_page(
        Report(
            title=f'{name}: {type(model).__name__}',
            origin=[
                ('config', str(config.filename)),
                ('checkpoint', checkpoint),
                ('validation images', str(len(results)) if results else 'none'),
                ('made by', f'mmqnet {__version__}'),
            ],
            layers=model.quantization_report,
            weights=weight_facts(model),
            activations=activations,
            costs=_costs(model, errors or {}),
            pictures=[_gap(log, Path(checkpoint).parent), *_detections(results, checkpoint)],
        )
    )


def _costs(model: nn.Module, errors: Mapping[str, Mapping[int, float | None]]) -> dict[str, float]:
    """Return what the quantizers cost at the bits that they have in this model."""
    costs = {}
    for name, quantizer in quantizers_of(model).items():
        error = errors.get(name, {}).get(quantizer.num_bits)
        if error is not None:
            costs[name] = error
    return costs


def _gap(log: str | None, folder: Path) -> Picture:
    title = 'Soft and hard functions'
    try:
        curve = read_gap(log or folder)
    except (FileNotFoundError, ValueError):
        if log:
            raise
        return Picture(title, 'No log of the gap hook is beside the checkpoint; --log names one.')
    soft, hard = curve.soft[-1], curve.hard[-1]
    text = (
        f'{curve.metric} of the functions of the training, {soft:.4g}, and of the staircases, '
        f'{hard:.4g}, on the first validation images: a gap of {soft - hard:.2g}.'
    )
    return Picture(title, text, draw_gap(curve) if len(curve.steps) > 1 else None)


def _detections(results: list[Any], checkpoint: str) -> list[Picture]:
    shown = [result for result in results if hasattr(result, 'pred_instances')][:_SHOWN]
    if not shown:
        return []
    images = [mmcv.bgr2rgb(mmcv.imread(result.img_path)) for result in shown]
    figure = draw_side_by_side(images, {'quantized': shown}, _classes(checkpoint, shown), _SCORE)
    text = 'The first validation images, with the staircases.'
    return [Picture('Detections', text, figure, 'jpg')]


def _classes(checkpoint: str, results: list[Any]) -> list[str]:
    """Return the names of the classes, or their numbers where the checkpoint has none."""
    meta = read_checkpoint(checkpoint).get('meta', {}).get('dataset_meta') or {}
    if meta.get('classes'):
        return list(meta['classes'])
    most = max((int(label) for r in results for label in r.pred_instances.labels), default=0)
    return [str(label) for label in range(most + 1)]

"""The table at the end of the demo."""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmqnet import atomic  # repairs upstream faults, too

# How far the mAP of an exported file may be from that of the model in torch.
TOLERANCE = 0.002


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        title: Which model, evaluated how.
        metrics: As tools/test.py wrote them.
        bits: Weight and activation bits of the backbone.
        num_bytes: Bytes of the backbone's weights, or None where they are not stored that way.
        target: Share of the float mAP that it should keep, or None.
        same_as: Title of the row whose mAP it should have but for ``TOLERANCE``; '' for none.
        file: The exported file that was evaluated, or None.
        milliseconds: Of one picture in that file, or None.
    """

    title: str
    metrics: dict[str, float]
    bits: str
    num_bytes: float | None
    target: float | None = None
    same_as: str = ''
    file: Path | None = None
    milliseconds: float | None = None


@dataclass(frozen=True)
class Backbone:
    """Size and bits of the backbone of a quantized model.

    Attributes:
        float_bytes: Bytes of its weights in float32.
        packed_bytes: Bytes of its weights at the bits of each layer.
        bits: Weight and activation bits of most of its quantized layers, as ``'3 / 8'``.
    """

    float_bytes: float
    packed_bytes: float
    bits: str


def describe_backbone(config: Config) -> Backbone:
    """Return what the backbone of a quantized config takes; the model is built without weights."""
    from mmdet.registry import MODELS

    MMLogger.get_instance('demo', log_level='WARNING')  # no table of layers on the screen
    init_default_scope('mmdet')
    model = MODELS.build(config.model)
    bits = []
    for name in ('weight_quantizer', 'input_quantizer'):
        found = [getattr(module, name, None) for module in model.backbone.modules()]
        numbers = [quantizer.num_bits for quantizer in found if quantizer]
        bits.append(statistics.mode(numbers) if numbers else 32)
    report = model.quantization_report
    return Backbone(
        float_bytes=report.float_weight_bytes('backbone.'),
        packed_bytes=report.weight_bytes('backbone.'),
        bits=f'{bits[0]} / {bits[1]}',
    )


def share_of_float(row: Row, rows: list[Row]) -> float:
    """Return the share of the first model's mAP that a model keeps."""
    first = rows[0].metrics['coco/bbox_mAP']
    return row.metrics['coco/bbox_mAP'] / first if first else math.nan


def describe_target(row: Row, rows: list[Row]) -> str:
    """Return what a model should reach, and whether it does."""
    if row.target is not None:
        reached = share_of_float(row, rows) >= row.target
        return f'{row.target:.2f}: {"reached" if reached else "missed"}'
    if row.same_as:
        other = next(other for other in rows if other.title == row.same_as)
        difference = abs(row.metrics['coco/bbox_mAP'] - other.metrics['coco/bbox_mAP'])
        reached = round(difference, 6) <= TOLERANCE  # the metrics have three decimals
        return f'mAP of torch ± {TOLERANCE}: {"reached" if reached else "missed"}'
    return ''


def make_table(rows: list[Row]) -> str:
    """Return the rows in Markdown, each with its share of the float model's mAP."""
    lines = [
        '| model | W / A bits | backbone weights | mAP | mAP50 | mAP75 | of float | target '
        '| file | ms a picture |',
        '|---|---|---|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        size = '' if row.num_bytes is None else f'{row.num_bytes / 1024:,.0f} KiB'
        scores = [row.metrics[f'coco/bbox_mAP{suffix}'] for suffix in ('', '_50', '_75')]
        numbers = ' | '.join(f'{score:.3f}' for score in [*scores, share_of_float(row, rows)])
        target = describe_target(row, rows)
        file = f'{row.file.stat().st_size / 1024:,.0f} KiB' if row.file else ''
        time = '' if row.milliseconds is None else f'{row.milliseconds:.1f}'
        cells = (row.title, row.bits, size, numbers, target, file, time)
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def write_results(folder: Path, name: str, rows: list[Row]) -> str:
    """Write NAME.json and NAME.md, and return the table."""
    entries = [
        dict(
            model=row.title,
            bits=row.bits,
            backbone_bytes=row.num_bytes,
            metrics=row.metrics,
            share_of_float=share_of_float(row, rows),
            target=row.target,
            same_as=row.same_as or None,
            file_bytes=row.file.stat().st_size if row.file else None,
            milliseconds=row.milliseconds,
        )
        for row in rows
    ]
    text = make_table(rows)
    atomic.write_text(folder / f'{name}.json', json.dumps(dict(rows=entries), indent=2) + '\n')
    atomic.write_text(folder / f'{name}.md', text)
    return text

"""How much the hard functions lose against the soft ones over a training (figure 4)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmqnet.checks import did_you_mean
from mmqnet.visualization.style import BLUE, FAINT, ORANGE, RED, new_figure, set_title, tidy

_SOFT, _HARD = 'gap/soft/', 'gap/hard/'
_TEMPERATURES = ('temperature_weight', 'temperature_activation')


@dataclass(frozen=True)
class GapCurve:
    """What `mmqnet.SoftHardGapHook` has logged of one metric.

    Attributes:
        metric: Its name, for example ``'coco/bbox_mAP'``.
        unit: What is counted in ``steps``: ``'epoch'`` or ``'iteration'``.
        steps: When it was measured, increasing.
        soft: The metric with soft functions.
        hard: The metric with hard functions.
        temperatures: T of the weights and of the activations at that time, as far as logged.
    """

    metric: str
    unit: str
    steps: tuple[int, ...]
    soft: tuple[float, ...]
    hard: tuple[float, ...]
    temperatures: dict[str, tuple[float, ...]]


def read_gap(path: str | Path, metric: str | None = None) -> GapCurve:
    """Read the curve of one metric from a log.

    Args:
        path: A ``scalars.json`` that MMEngine's local visualization backend wrote, or a work dir
            with such files of one or more runs; a resumed run replaces what comes after its start.
            Of runs that only validate the last one counts, where there is no training.
        metric: Which metric. Default: the first one of the log.

    Raises:
        FileNotFoundError: If the path does not exist or the folder has no log.
        ValueError: If the log is no log, or holds no gap of this metric.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), 'scalars.json')
        >>> _ = path.write_text('{"gap/soft/top1": 60.0, "gap/hard/top1": 59.0, "step": 1}')
        >>> read_gap(path).hard
        (59.0,)
    """
    records: list[dict[str, Any]] = []
    validated: list[dict[str, Any]] = []
    for log in _find_logs(Path(path)):
        found = list(_gap_records(log))
        if found and found[0]['step'] == 0:  # a run that only validates is no part of a training
            validated = found
        elif found:
            records = [r for r in records if r['step'] < found[0]['step']] + found
    records = records or validated
    names = list(dict.fromkeys(name for record in records for name in _metrics(record)))
    if not names:
        raise ValueError(
            f'{str(path)!r} holds no soft/hard gap: train with `mmqnet.SoftHardGapHook` in '
            '`default_hooks`, and validate at least once'
        )
    metric = names[0] if metric is None else metric
    if metric not in names:
        raise ValueError(
            f'{str(path)!r} has no metric {metric!r}; it has {names}.{did_you_mean(metric, names)}'
        )
    records = [record for record in records if metric in _metrics(record)]
    temperatures = {
        name.removeprefix('temperature_'): tuple(float(record[name]) for record in records)
        for name in _TEMPERATURES
        if all(name in record for record in records)
    }
    return GapCurve(
        metric,
        unit=records[-1]['unit'],
        steps=tuple(record['step'] for record in records),
        soft=tuple(float(record[_SOFT + metric]) for record in records),
        hard=tuple(float(record[_HARD + metric]) for record in records),
        temperatures=temperatures,
    )


def draw_gap(curve: GapCurve) -> Figure:
    """Draw the metric with soft and hard functions, T on a second axis, the difference below.

    One validation makes no curve: then the two values stand beside each other, as bars.

    Example:
        >>> curve = GapCurve('top1', 'epoch', (1, 2), (60.0, 62.0), (50.0, 61.0), {})
        >>> [axes.get_ylabel() for axes in draw_gap(curve).axes]
        ['top1', 'soft minus hard']
    """
    if len(curve.steps) == 1:
        return _draw_bars(curve)
    figure = new_figure(4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    steps = curve.steps
    upper.fill_between(steps, curve.hard, curve.soft, color='#F3D9A4', linewidth=0)
    upper.plot(steps, curve.soft, color=ORANGE, marker='s', markersize=5, label='soft', gid='soft')
    upper.plot(steps, curve.hard, color=BLUE, marker='o', markersize=5, label='hard', gid='hard')
    upper.set_ylabel(curve.metric)
    lines = upper.get_lines() + _draw_temperatures(upper, curve)
    figure.legend(
        handles=lines, loc='outside lower center', ncols=len(lines), fontsize=9, frameon=False
    )
    gaps = [soft - hard for soft, hard in zip(curve.soft, curve.hard, strict=True)]
    lower.axhline(0, color=FAINT, linewidth=1)
    lower.plot(steps, gaps, color=RED, marker='.', markersize=8, gid='gap')
    lower.set_ylabel('soft minus hard')
    lower.set_xlabel(curve.unit)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (upper, lower):
        tidy(axes, grid='y')
    last = f'last: soft {curve.soft[-1]:.4g}, hard {curve.hard[-1]:.4g}, gap {gaps[-1]:.2g}'
    set_title(figure, 'Soft and hard quantization functions, evaluated during training', last)
    return figure


def _draw_bars(curve: GapCurve) -> Figure:
    figure = new_figure(2.4)
    axes = figure.subplots()
    (soft,), (hard,) = curve.soft, curve.hard
    bars = axes.barh(['hard', 'soft'], [hard, soft], color=[BLUE, ORANGE], height=0.6)
    axes.bar_label(bars, fmt='%.4g', padding=4)
    axes.set_xlabel(curve.metric)
    axes.margins(x=0.12)
    tidy(axes, grid='x')
    about = [f'{curve.unit} {curve.steps[0]}', f'gap {soft - hard:.2g}']
    about += [f'T of {name} {value:g}' for name, (value,) in curve.temperatures.items()]
    set_title(figure, 'Soft and hard quantization functions, one validation', ', '.join(about))
    return figure


def _draw_temperatures(axes: Axes, curve: GapCurve) -> list[Any]:
    if not curve.temperatures:
        return []
    series = dict(curve.temperatures)
    if len(set(series.values())) == 1:
        series = {'weights and activations': next(iter(series.values()))}
    right = axes.twinx()
    lines: list[Any] = []
    for (name, values), style in zip(series.items(), (':', '-.'), strict=False):
        lines += right.plot(
            curve.steps, values, color=FAINT, linestyle=style, label=f'temperature T, {name}'
        )
    tidy(right)
    right.spines['right'].set(visible=True, color=FAINT)
    right.set_ylim(bottom=0)
    right.set_ylabel('temperature T')
    return lines


def _find_logs(path: Path) -> list[Path]:
    """Return the log itself, or those of all runs in a work dir, by their time stamps."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise FileNotFoundError(f'{str(path)!r} does not exist')
    logs = sorted(path.rglob('scalars.json'))
    if not logs:
        raise FileNotFoundError(f'no `scalars.json` below {str(path)!r}: is it a work dir?')
    return logs


def _gap_records(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the hook's records, with temperatures and unit from the records before them."""
    state: dict[str, Any] = {}
    for number, line in enumerate(log.read_text(errors='replace').splitlines(), start=1):
        try:
            record = json.loads(line)
            step = int(record['step'])
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f'{log}, line {number} is not a record of scalars: {line[:60]!r}'
            ) from None
        if _metrics(record):
            by_epoch = step == state.get('epoch') and step != state.get('iter')
            yield {**state, **record, 'step': step, 'unit': 'epoch' if by_epoch else 'iteration'}
        elif 'iter' in record:
            state = {key: record[key] for key in ('epoch', 'iter', *_TEMPERATURES) if key in record}


def _metrics(record: dict[str, Any]) -> list[str]:
    names = (key.removeprefix(_SOFT) for key in record if key.startswith(_SOFT))
    return [name for name in names if _HARD + name in record]

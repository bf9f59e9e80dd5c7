"""A picture of all rows: times of the operator over n, and the other ratios as bars."""

import functools
import io
import statistics
from typing import Any

from measuring import Row

COLUMNS = 3


def draw(parts: dict[str, dict[str, Row]]) -> bytes | None:
    """Draw the rows that have been measured.

    Returns:
        bytes or None: A PNG file; None without rows or without matplotlib.
    """
    if not parts:
        return None
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use('Agg')
    from matplotlib import pyplot

    sizes = group_by_size(parts.get('operator', {}))
    others = {part: rows for part, rows in parts.items() if part != 'operator'}
    panels = [functools.partial(draw_times, size=size, rows=rows) for size, rows in sizes.items()]
    panels += [
        functools.partial(draw_ratios, part=part, rows=rows) for part, rows in others.items()
    ]
    columns = min(len(panels), COLUMNS)
    lines = -(-len(panels) // columns)
    colours = matplotlib.cycler(color=matplotlib.colormaps['tab20'].colors)  # one for each curve
    with matplotlib.rc_context({'axes.prop_cycle': colours}):
        figure, axes = pyplot.subplots(
            lines, columns, figsize=(5 * columns, 4.5 * lines), squeeze=False
        )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        panel(axis)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=110)
    pyplot.close(figure)
    return file.getvalue()


def group_by_size(rows: dict[str, Row]) -> dict[str, dict[int, Row]]:
    """Return the rows of the operator by size and number of thresholds."""
    sizes: dict[str, dict[int, Row]] = {}
    for case, row in rows.items():
        size, n = case.split(', n = ')
        sizes.setdefault(size, {})[int(n)] = row
    return sizes


def draw_times(axis: Any, size: str, rows: dict[int, Row]) -> None:
    """Draw median milliseconds over the number of thresholds."""
    for name in next(iter(rows.values())).raw['seconds']:
        times = [statistics.median(row.raw['seconds'][name]) * 1e3 for row in rows.values()]
        axis.plot(list(rows), times, marker='.', label=name)
    axis.set(
        title=f'operator, {size}', xlabel='thresholds', ylabel='ms', xscale='log', yscale='log'
    )
    axis.legend(fontsize=6)


def draw_ratios(axis: Any, part: str, rows: dict[str, Row]) -> None:
    """Draw a bar for each ratio, with a mark at its target."""
    bars = [
        (f'{c}\n{name}', ratio) for c, row in rows.items() for name, ratio in row.ratios.items()
    ]
    positions = range(len(bars))
    axis.barh(positions, [ratio.value for _, ratio in bars], height=0.6)
    for position, (_, ratio) in zip(positions, bars, strict=True):
        target = ratio.at_most if ratio.at_least is None else ratio.at_least
        if target is not None:
            axis.plot([target, target], [position - 0.4, position + 0.4], color='black')
    axis.set_yticks(positions, [name for name, _ in bars], fontsize=7)
    axis.invert_yaxis()
    axis.set(title=f'{part} (black: target)')

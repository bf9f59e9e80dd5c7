"""Table and picture of the comparison of methods."""

import io
from typing import Any

from comparison import EPOCHS, METHODS, Cell
from comparison_results import Results, Summary


def table(results: Results) -> str:
    """Return a Markdown table: bits by methods, the best in bold.

    A method whose mean is within one standard deviation (the larger of both) of the best one is
    marked by ``~``.
    """
    lines = [
        f'| bits (epochs) | float, trained on | {" | ".join(METHODS)} |',
        '|---' * (len(METHODS) + 2) + '|',
    ]
    for bits, epochs in EPOCHS.items():
        found = {method: results.summary(Cell(method, bits)) for method in METHODS}
        trained_on = results.float_summary(epochs)
        cells = [_cell(summary, found, trained_on) for summary in found.values()]
        baseline = '' if trained_on is None else _numbers(trained_on)
        lines.append(f'| {bits} ({epochs}) | {baseline} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _cell(
    summary: Summary | None, row: dict[str, Summary | None], trained_on: Summary | None
) -> str:
    if summary is None:
        return ''
    first = max((other for other in row.values() if other), key=lambda other: other.mean)
    text = _numbers(summary)
    if trained_on is not None:
        text += f' ({summary.mean / trained_on.mean:.3f})'
    if summary is first:
        return f'**{text}**'
    spread = max(summary.deviation, first.deviation)
    return f'{text} ~' if first.mean - summary.mean <= spread else text


def _numbers(summary: Summary) -> str:
    if len(summary.scores) == 1:
        return f'{summary.mean:.3f}'
    return f'{summary.mean:.3f} ± {summary.deviation:.3f}'


def draw(results: Results) -> bytes:
    """Draw mean mAP over bits, a point for each seed; return a PNG file."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(10, 5))
    for i, method in enumerate(METHODS):
        _draw_method(axis, results, method, i)
    for place, epochs in enumerate(EPOCHS.values()):
        trained_on = results.float_summary(epochs)
        if trained_on:
            axis.hlines(trained_on.mean, place - 0.45, place + 0.45, 'black', 'dashed', lw=1)
    axis.set_xticks(range(len(EPOCHS)), [f'{bits}\n{n} epochs' for bits, n in EPOCHS.items()])
    axis.set(xlabel='weight / activation bits', ylabel='hard mAP, each dot a seed')
    axis.set_title('Methods on the demo (dashed: float, trained on)')
    scores = results.scores().values()
    if scores:
        axis.set_ylim(min(scores) - 0.02, max(scores) + 0.02)
    axis.legend(ncols=len(METHODS), fontsize=8)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=110)
    pyplot.close(figure)
    return file.getvalue()


def _draw_method(axis: Any, results: Results, method: str, index: int) -> None:
    width = 0.8 / len(METHODS)
    offset = (index - (len(METHODS) - 1) / 2) * width
    places, means = [], []
    for place, bits in enumerate(EPOCHS):
        summary = results.summary(Cell(method, bits))
        if summary:
            places.append(place + offset)
            means.append(summary.mean)
            axis.plot([places[-1]] * len(summary.scores), summary.scores, 'k.', markersize=4)
    axis.bar(places, means, width, label=method, alpha=0.6)

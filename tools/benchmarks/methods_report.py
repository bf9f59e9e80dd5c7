"""Results of the comparison of methods: best rates, table and picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison_configs import recipe_digest
from comparison_results import Results, Summary
from matplotlib.figure import Figure
from methods_plan import DISTILLED, EPOCHS, FLOAT, METHODS, Cell, best_rate, key_of

from mmqnet.visualization.style import new_figure, tidy

_FAR = 0.1  # mAP


class MethodResults(Results):
    """Finished trainings of the methods.

    Those of a recipe that has changed since do not count, nor do those without a score on the test
    split.

    Args:
        path: The json file.
        conditions: What makes results comparable.
        seed: The one that is trained at each rate.
        rates: Of that seed. Default: None, those of ``methods_plan.rates_of``.

    Raises:
        ValueError: As of the base.
    """

    def __init__(
        self,
        path: Path,
        conditions: dict[str, Any],
        seed: int = 0,
        rates: Sequence[float] | None = None,
    ) -> None:
        super().__init__(path, conditions)
        self._seed = seed
        self._rates = rates

    def key_of(self, row: Mapping[str, Any]) -> str:
        """Return the key of the training that a row of the file is about."""
        return key_of(_cell_of(row), row['seed'], row['rate'], row['recipe'])

    def scores(self) -> dict[str, float]:
        """Return the validation mAP of each training that has a score on the test split."""
        return {self.key_of(row): row['mAP'] for row in self._tested()}

    def summary(self, cell: Cell) -> Summary | None:
        """Return the test mAP of a cell's seeds at the rate that is best on the validation split.

        None while a rate is missing.
        """
        rows = [row for row in self._tested() if _cell_of(row) == cell and _is_current(row)]
        rate = best_rate(cell, self.scores(), self._seed, self._rates) if rows else None
        if rate is None:
            return None
        return Summary(tuple(row['test_mAP'] for row in rows if row['rate'] == rate))

    def float_summary(self, epochs: int) -> Summary | None:
        """Return the float model trained on for as many epochs."""
        return self.summary(Cell(FLOAT, f'{epochs} epochs'))

    def _tested(self) -> list[dict[str, Any]]:
        return [row for row in self._rows if 'test_mAP' in row]


def _is_current(row: Mapping[str, Any]) -> bool:
    return row['recipe'] == recipe_digest(_cell_of(row).recipe)


def _cell_of(row: Mapping[str, Any]) -> Cell:
    return Cell(row['method'], row['bits'])


def table(results: MethodResults) -> str:
    """Return a Markdown table: bits by methods, the best in bold.

    A method whose mean is within one standard deviation (the larger of both) of the best one is
    marked by ``~``. A distilled model is not compared with models that have no teacher.
    """
    lines = [
        f'| bits (epochs) | float, trained on | {" | ".join(METHODS)} |',
        '|---' * (len(METHODS) + 2) + '|',
    ]
    for bits, epochs in EPOCHS.items():
        found = {method: results.summary(Cell(method, bits)) for method in METHODS}
        trained_on = results.float_summary(epochs)
        cells = [_cell(summary, trained_on) for summary in found.values()]
        rivals = {i: found[method] for i, method in enumerate(METHODS) if method != DISTILLED}
        _mark(cells, {i: summary for i, summary in rivals.items() if summary})
        baseline = '' if trained_on is None else str(trained_on)
        lines.append(f'| {bits} ({epochs}) | {baseline} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _cell(summary: Summary | None, trained_on: Summary | None) -> str:
    if summary is None:
        return ''
    share = '' if trained_on is None else f' ({summary.mean / trained_on.mean:.3f})'
    return f'{summary}{share}'


def _mark(cells: list[str], rivals: dict[int, Summary]) -> None:
    """Mark the first of the rivals, which are cells by their places, and what is close to it.

    Several are the first if their means are equal.
    """
    if not rivals:
        return
    first = max(rivals.values(), key=lambda summary: summary.mean)
    for place, summary in rivals.items():
        if summary.mean == first.mean:
            cells[place] = f'**{cells[place]}**'
        elif summary.is_close(first):
            cells[place] += ' ~'


def draw(results: MethodResults) -> Figure:
    """Draw mAP over bits: a point for each seed, a line at the mean.

    A mean that is far below the best one of its bits is a triangle at the lower edge with its
    number: on one scale with it, the others could not be told apart.
    """
    trained: dict[str, dict[int, Summary]] = {}
    for method in METHODS:
        for place, bits in enumerate(EPOCHS):
            summary = results.summary(Cell(method, bits))
            if summary:
                trained.setdefault(method, {})[place] = summary
    figure = new_figure(5, width=10)
    axis = figure.subplots()
    width = 0.8 / max(len(trained), 1)
    for i, (method, summaries) in enumerate(trained.items()):
        best = {place: _best_mean(trained, place) for place in summaries}
        near = {place: s for place, s in summaries.items() if best[place] - s.mean <= _FAR}
        far = {place: s for place, s in summaries.items() if place not in near}
        _draw_method(axis, method, near, far, (i + 0.5) * width - 0.4, width)
    for place, epochs in enumerate(EPOCHS.values()):
        trained_on = results.float_summary(epochs)
        if trained_on:
            axis.hlines(trained_on.mean, place - 0.4, place + 0.4, 'black', 'dashed', lw=1)
    axis.set_xticks(range(len(EPOCHS)), [f'{bits}\n{n} epochs' for bits, n in EPOCHS.items()])
    axis.set(xlabel='weight / activation bits', ylabel='hard test mAP')
    axis.set_title('Methods on the demo: seeds and their mean (dashed: float, trained on)')
    axis.margins(y=0.08)
    tidy(axis, 'y')
    if trained:
        axis.legend(loc='center left', fontsize=8)
    return figure


def _best_mean(trained: Mapping[str, Mapping[int, Summary]], place: int) -> float:
    return max(summaries[place].mean for summaries in trained.values() if place in summaries)


def _draw_method(
    axis: Any,
    method: str,
    near: Mapping[int, Summary],
    far: Mapping[int, Summary],
    offset: float,
    width: float,
) -> None:
    places = [x + offset for x, summary in near.items() for _ in summary.scores]
    scores = [score for summary in near.values() for score in summary.scores]
    [line] = axis.plot(places, scores, 'o', markersize=3, label=method)
    color = line.get_color()
    for x, summary in near.items():
        left = x + offset - 0.4 * width
        axis.hlines(summary.mean, left, left + 0.8 * width, color, lw=2)
    bottom = axis.get_xaxis_transform()  # heights from 0, the lower edge, to 1
    for x, summary in far.items():
        axis.plot([x + offset], [0.015], 'v', color=color, markersize=6, transform=bottom)
        text = dict(ha='center', color=color, size=8, transform=bottom)
        axis.text(x + offset, 0.045, f'{summary.mean:.2f}', **text)

"""Results of the ablation: tables with the paper's figures beside, and a picture of the gap."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablation_plan import ROWS, key_of
from comparison_results import Results, Summary
from matplotlib.figure import Figure

from mmqnet.visualization.style import BLUE, ORANGE, RED, new_figure, set_title, tidy


@dataclass(frozen=True)
class Pair:
    """Two rows of which the paper found the first one better.

    Attributes:
        table: Of the paper.
        bits: Of weights and activations.
        better: What the better one has, and its row.
        worse: What the other one has, and its row.
        paper: By how much, in points of top-1 of ResNet-18.
    """

    table: int
    bits: str
    better: tuple[str, str]
    worse: tuple[str, str]
    paper: str


PAIRS = (
    Pair(5, '2/32', ('k-means', 'w2-a32'), ('linear', 'w2-a32-uniform'), '0.3 to 1.2'),
    Pair(5, '3(±4)/32', ('k-means', 'w3-a32'), ('linear', 'w3-a32-uniform'), '0.3 to 1.2'),
    Pair(6, '2/32', ('layer-wise', 'w2-a32'), ('shared', 'w2-a32-shared'), '1.0'),
    Pair(7, '2/32', ('pre-trained', 'w2-a32'), ('scratch', 'w2-a32-scratch'), '15'),
    Pair(7, '2/32', ('pre-trained', 'w2-a32'), ('long scratch', 'w2-a32-scratch-long'), '15'),
)
# Title and colour of the rows of figure 4.
GAPS = {
    'gap-growing': ('T from 10 to 100', BLUE),
    'gap-10': ('T = 10', ORANGE),
    'gap-100': ('T = 100', RED),
}


@dataclass(frozen=True)
class Curves:
    """Soft minus hard mAP, of all seeds of a row.

    Attributes:
        epochs: After which all seeds were measured.
        gaps: One tuple over the epochs for each seed.
    """

    epochs: tuple[int, ...]
    gaps: tuple[tuple[float, ...], ...]

    def after(self, index: int) -> Summary:
        """Return the gaps of all seeds at one of the epochs."""
        return Summary(tuple(gap[index] for gap in self.gaps))


class AblationResults(Results):
    """Finished trainings of the ablation; those of a recipe that has changed do not count."""

    def key_of(self, row: Mapping[str, Any]) -> str:
        """Return the key of the training that a row of the file is about."""
        return key_of(row['row'], row['seed'], row['recipe'])

    def summary(self, name: str) -> Summary | None:
        """Return the mAP of all seeds of a row, or None if there is none."""
        scores = tuple(row['mAP'] for row in self._rows_of(name))
        return Summary(scores) if scores else None

    def curves(self, name: str) -> Curves | None:
        """Return the gaps of a row, or None if there are none."""
        seeds = [
            {epoch: soft - hard for epoch, soft, hard in zip(*row['gap'].values(), strict=True)}
            for row in self._rows_of(name)
        ]
        if not seeds:
            return None
        # a training that is killed before a validation goes on behind it
        epochs = tuple(epoch for epoch in seeds[0] if all(epoch in seed for seed in seeds))
        return Curves(epochs, tuple(tuple(seed[e] for e in epochs) for seed in seeds))

    def _rows_of(self, name: str) -> list[dict[str, Any]]:
        recipe = ROWS[name].digest
        return [row for row in self._rows if row['row'] == name and row['recipe'] == recipe]


def tables(results: AblationResults) -> str:
    """Return the paper's tables 5 to 7 and the ends of figure 4 in Markdown."""
    return f'{_pairs(results)}\n{_gaps(results)}'


def _pairs(results: AblationResults) -> str:
    lines = [
        "| table | bits | paper's choice | mAP | against | mAP | points | paper's points | order |",
        '|---|---|---|---|---|---|---|---|---|',
    ]
    for pair in PAIRS:
        better, worse = (results.summary(name) for _, name in (pair.better, pair.worse))
        points = order = ''
        if better and worse:
            points = f'{100 * (better.mean - worse.mean):+.1f}'
            order = _order(better, worse)
        cells = (pair.table, pair.bits, pair.better[0], better or '', pair.worse[0], worse or '')
        lines.append(f'| {" | ".join(map(str, cells))} | {points} | {pair.paper} | {order} |')
    return '\n'.join(lines) + '\n'


def _order(better: Summary, worse: Summary) -> str:
    """Compare the order with the paper's; one standard deviation (the larger) decides nothing."""
    if better.is_close(worse):
        return 'undecided'
    holds = better.mean > worse.mean
    if 1 in (len(better.scores), len(worse.scores)):
        return "the paper's, one seed" if holds else 'the other way, one seed'
    return "the paper's" if holds else '**the other way**'


def _gaps(results: AblationResults) -> str:
    lines = [
        '| figure 4, 2/32 | soft minus hard, first epoch | last epoch | closes | hard mAP |',
        '|---|---|---|---|---|',
    ]
    for name, (title, _) in GAPS.items():
        curves, summary = results.curves(name), results.summary(name)
        cells = ('', '', '', '')
        if curves and summary:
            first, last = curves.after(0), curves.after(-1)
            cells = (str(first), str(last), _closes(first, last), str(summary))
        lines.append(f'| {title} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _closes(first: Summary, last: Summary) -> str:
    """Say whether a gap became smaller, of either sign."""
    before, after = (Summary(tuple(map(abs, gap.scores))) for gap in (first, last))
    if before.is_close(after):
        return 'undecided'
    return 'yes' if after.mean < before.mean else 'no'


def draw(results: AblationResults) -> Figure:
    """Draw the mean gap over the training, each seed in a thin line."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    axes.axhline(0, color='black', linewidth=0.8)
    for name, (title, colour) in GAPS.items():
        curves = results.curves(name)
        if curves is None:
            continue
        for gap in curves.gaps:
            axes.plot(curves.epochs, gap, color=colour, linewidth=0.6, alpha=0.5)
        means = [statistics.fmean(values) for values in zip(*curves.gaps, strict=True)]
        axes.plot(curves.epochs, means, color=colour, marker='o', label=title)
    axes.set(xlabel='epoch', ylabel='mAP, soft minus hard')
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, frameon=False)
    tidy(axes, grid='y')
    set_title(figure, 'Gap of soft and hard functions over the training, ternary weights')
    return figure

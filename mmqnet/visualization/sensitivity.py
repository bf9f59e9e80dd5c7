"""What bits cost, layer by layer, and what the best allocations of them lose."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmqnet.sensitivity import ROLES, Sensitivities
from mmqnet.visualization.style import BLUE, INK, ORANGE, RED, new_figure, set_title, tidy

_GREEN, _PINK, _SKY = '#009E73', '#CC79A7', '#56B4E9'  # of the same palette
_LINES = ((RED, 'o'), (ORANGE, 's'), (_GREEN, '^'), (BLUE, 'D'), (_SKY, 'v'), (_PINK, 'P'))
Point = tuple[float, float]


def draw_sensitivities(record: Sensitivities) -> Figure:
    """Draw the errors of all quantizers in the order of the network, a line for each bits.

    Args:
        record: What has been measured.

    Example:
        >>> from mmqnet.sensitivity import Layer, Sensitivities, parse_choices
        >>> layer = Layer('fc', 8, 8, 4, 4, 'fc.weight_quantizer', 'fc.input_quantizer')
        >>> settings = dict(method='direct', measure='loss', num_samples=8)
        >>> errors = {'fc.weight_quantizer': {4: 0.1}, 'fc.input_quantizer': {8: 0.01}}
        >>> record = Sensitivities(settings, parse_choices(['w4-a8']), [layer], errors)
        >>> [axes.get_ylabel() for axes in draw_sensitivities(record).axes]
        ['loss by the weights of', 'loss by the input of']
    """
    roles = [role for role in ROLES if record.bits_of(role)]
    figure = new_figure(height=4.2 * len(roles))
    for axes, role in zip(figure.subplots(len(roles), 1, squeeze=False)[:, 0], roles, strict=True):
        names = [name for name in record.quantizers(role) if record.errors[name]]
        for (color, marker), bits in zip(_LINES * 2, record.bits_of(role), strict=False):
            errors = [record.errors[name].get(bits) for name in names]
            heights = [float('nan') if error is None else error for error in errors]
            style = dict(color=color, marker=marker, markersize=4, linewidth=1.2)
            axes.plot(heights, label=f'{role[0]}{bits}', gid=f'{role}:{bits}', **style)
        _finish(axes, role, [name.rpartition('.')[0] for name in names])
    set_title(figure, 'What each layer loses at each number of bits', record.title)
    return figure


def draw_frontier(
    frontier: Sequence[Point], uniform: Mapping[str, Point], chosen: Point, unit: str
) -> Figure:
    """Draw what the best allocations lose over what they cost, and what uniform ones do.

    Args:
        frontier: Costs and errors of the best allocations.
        uniform: The same of those that give all layers one choice, by its name.
        chosen: Of the allocation that was asked for.
        unit: Of the costs.

    Example:
        >>> frontier, uniform = [(2, 0.3), (4, 0.1)], {'w4-a4': (4, 0.2)}
        >>> figure = draw_frontier(frontier, uniform, (4, 0.1), 'bits of a weight on average')
        >>> figure.axes[0].get_xlabel()
        'bits of a weight on average'
    """
    figure = new_figure(height=4.4)
    axes = figure.subplots()
    label = 'best allocations'
    axes.plot(*zip(*frontier, strict=True), color=BLUE, marker='o', markersize=3, label=label)
    label = 'one choice for all layers'
    for name, point in uniform.items():
        axes.plot(*point, color=ORANGE, marker='D', linestyle='', label=label, gid=name)
        axes.annotate(f'  {name}', point, color=INK, size=9, va='center')
        label = '_'  # once in the legend
    axes.plot(*chosen, color=RED, marker='*', markersize=14, linestyle='', label='this one')
    _scale_errors(axes)
    axes.set(xlabel=unit, ylabel='sum of the losses of all layers')
    axes.legend(frameon=False, fontsize=9)
    tidy(axes, grid='both')
    set_title(figure, 'What the best allocations of bits lose')
    return figure


def _finish(axes: Axes, role: str, names: Sequence[str]) -> None:
    _scale_errors(axes)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_ylabel(f'loss by the {"weights" if role == "weight" else "input"} of')
    axes.legend(frameon=False, fontsize=9, ncols=6, loc='lower right', bbox_to_anchor=(1, 1))
    tidy(axes, grid='both')
    axes.tick_params(axis='x', labelsize=max(3, min(8, 320 / max(len(names), 1))))


def _scale_errors(axes: Axes) -> None:
    """Set a logarithmic scale; measured directly, small losses may be negative by chance."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    values = values[np.isfinite(values)]
    if len(values) and values.max() > 0:
        if values.min() > 0:
            axes.set_yscale('log')
        else:
            axes.set_yscale('symlog', linthresh=values.max() / 100)

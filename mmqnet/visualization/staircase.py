"""The quantization function of a layer over the histogram of what it quantizes."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mmqnet.ops import soft_quantize
from mmqnet.quantizers import HasTemperature
from mmqnet.visualization.function import (
    DrawnFunction,
    code_shares,
    describe,
    drawn_function,
    relative_error,
)
from mmqnet.visualization.sources import LayerValues
from mmqnet.visualization.style import BLUE, FAINT, FILL, INK, new_figure, set_title, tidy

_FEW = 16  # up to so many levels each gets a line and a number of its own
_BINS = 160


def draw_staircase(source: LayerValues, log: bool | None = None) -> Figure:
    """Draw the hard function over a histogram, and the share of the values on each level.

    A function with one alpha and beta for each channel is drawn in the scaled domain, where all
    channels share it.

    Args:
        source: Quantizer and values of a layer.
        log: Whether the histogram has a logarithmic scale. Default: for inputs, most of which
            are zeros.

    Example:
        >>> import torch
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> layer = QuantLinear(8, 4, weight_quantizer=dict(levels='pm4'))
        >>> model = torch.nn.Sequential(layer)
        >>> _ = calibrate(model, [torch.rand(2, 8)], model)
        >>> from mmqnet.visualization import weight_values
        >>> draw_staircase(weight_values(model, '0')).get_suptitle()
        '0: 3-bit weights, 7 levels'
    """
    function = drawn_function(source)
    figure, axes, shares = _axes(source, function, log)
    _draw_hard(axes, function, BLUE)
    _draw_shares(shares, source, function)
    _legend(axes, function)
    return figure


def draw_curves(
    source: LayerValues, temperatures: Sequence[float] = (1, 5, 15, 50), log: bool | None = None
) -> Figure:
    """Draw the soft function at several temperatures and the hard one, over a histogram.

    Args:
        source: Quantizer and values of a layer.
        temperatures: T of the soft curves, positive.
        log: As for :func:`draw_staircase`.

    Raises:
        ValueError: If there is no temperature, one is not positive, or the quantizer's function
            has none.

    Example:
        >>> import torch
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> layer = QuantLinear(8, 4, weight_quantizer=dict(levels='pm4'))
        >>> model = torch.nn.Sequential(layer)
        >>> _ = calibrate(model, [torch.rand(2, 8)], model)
        >>> from mmqnet.visualization import weight_values
        >>> figure = draw_curves(weight_values(model, '0'), temperatures=[2, 20])
        >>> [line.get_label() for line in figure.axes[0].get_lines()][1:3]
        ['soft, T = 2', 'soft, T = 20']
    """
    if not isinstance(source.quantizer, HasTemperature):
        raise ValueError(
            f'{type(source.quantizer).__name__} has no temperature: draw its staircase instead'
        )
    if not temperatures or not all(0 < t < float('inf') for t in temperatures):
        raise ValueError(f'`temperatures` should be positive numbers, but got {temperatures!r}')
    function = drawn_function(source)
    figure, axes, shares = _axes(source, function, log)
    shades = colormaps['viridis_r'](np.linspace(0.12, 0.8, len(temperatures)))
    for temperature, color in zip(sorted(temperatures), shades, strict=True):
        x = _grid(function, temperature)
        y = soft_quantize(
            x, function.levels, function.thresholds, function.alpha, function.beta, temperature
        )
        axes.plot(x, y, color=color, linewidth=1.8, label=f'soft, T = {temperature:g}', zorder=4)
    _draw_hard(axes, function, INK)
    _draw_shares(shares, source, function)
    _legend(axes, function)
    return figure


def _grid(function: DrawnFunction, temperature: float) -> Tensor:
    """Return points on the input axis, dense around the steps."""
    around = torch.linspace(-8, 8, 33) / (temperature * function.beta)
    steps = (function.edges[:, None] + around).flatten()
    low, high = function.limits
    x = torch.cat([torch.linspace(low, high, 800), steps])
    return x[(x >= low) & (x <= high)].sort().values


def _axes(
    source: LayerValues, function: DrawnFunction, log: bool | None
) -> tuple[Figure, Axes, Axes]:
    figure = new_figure(4.2)
    axes, shares = figure.subplots(1, 2, sharey=True, width_ratios=(5, 1))
    log = source.kind == 'input' if log is None else log
    symbol = 'w' if source.kind == 'weight' else 'x'
    _draw_histogram(axes, function, f'{source.kind}s', log)
    style = dict(color=FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1.5)
    axes.axline((0, 0), slope=1, label=f'$Q({symbol}) = {symbol}$', **style)
    axes.set_xlim(function.limits)
    margin = 0.08 * float(function.heights[-1] - function.heights[0])
    axes.set_ylim(float(function.heights[0]) - margin, float(function.heights[-1]) + margin)
    if function.scaled:
        axes.set_xlabel(rf'scaled {source.kind} $\beta {symbol}$, with one $\beta$ a channel')
        axes.set_ylabel(rf'level $Q({symbol})\,/\,\alpha$')
        scales = rf'$\alpha$ and $\beta$ for each of {function.channels} channels'
    else:
        axes.set_xlabel(f'{source.kind} ${symbol}$')
        axes.set_ylabel(f'quantized {source.kind} $Q({symbol})$')
        scales = rf'$\alpha$ = {float(function.alpha):.4g},  $\beta$ = {float(function.beta):.4g}'
    tidy(axes)
    error = f'RMS error {100 * relative_error(source):.3g}% of the RMS {source.kind}'
    set_title(figure, f'{source.layer}: {describe(source)}', f'{scales};  {error}')
    return figure, axes, shares


def _draw_histogram(axes: Axes, function: DrawnFunction, what: str, log: bool) -> None:
    values = function.values.flatten().numpy()
    counts, edges = np.histogram(values, bins=_BINS, range=function.limits)
    behind = axes.twinx()
    behind.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)
    behind.stairs(counts, edges, fill=True, color=FILL, baseline=0.5 if log else 0)
    if log:
        behind.set_yscale('log')
        behind.set_ylim(bottom=0.5)
    behind.set_axis_off()
    outside = 1 - float(counts.sum()) / len(values)
    notes = ['log scale'] * log + [f'{100 * outside:.2g}% outside'] * bool(outside > 0)
    label = f'{len(values):,} {what}' + (f' ({", ".join(notes)})' if notes else '')
    axes.fill_between([], [], [], color=FILL, label=label)  # the twin has no legend of its own


def _draw_hard(axes: Axes, function: DrawnFunction, color: str) -> None:
    low, high = function.limits
    x = np.concatenate([[low], function.edges.numpy(), [high]])
    y = function.heights.numpy()
    few = len(y) <= _FEW
    if few:
        axes.hlines(y, low, high, color='#C2C8CF', linewidth=0.6, zorder=1.2)
    axes.step(
        x,
        np.append(y, y[-1]),
        where='post',
        color=color,
        linewidth=2 if few else 1.3,
        label='hard',
        zorder=3,
        gid='hard',
    )


def _draw_shares(axes: Axes, source: LayerValues, function: DrawnFunction) -> None:
    shares = 100 * code_shares(source).cpu().numpy()
    y = function.heights.numpy()
    few = len(y) <= _FEW
    thickness = (0.55 if few else 1.0) * float(np.diff(y).min())
    axes.barh(y, shares, height=thickness, color=FAINT if few else BLUE, gid='shares')
    if few:
        for height, share in zip(y, shares, strict=True):
            text = f'{share:.0f}%' if share >= 1 or share == 0 else f'{share:.1f}%'
            axes.annotate(
                text, (share, height), (4, 0), textcoords='offset points', va='center', size=8.5
            )
        axes.set_xlim(0, 1.45 * shares.max())
    else:
        axes.set_xscale('symlog', linthresh=0.1)
        axes.set_xticks([0, 1, 100], ['0', '1', '100'])
        axes.set_xlim(0, 100)
    axes.set_xlabel(f'% of {source.kind}s')
    tidy(axes)
    axes.tick_params(left=False, labelleft=False)


def _legend(axes: Axes, function: DrawnFunction) -> None:
    """Place the legend where an increasing function and a peak at zero leave space."""
    place = 'upper left' if function.levels[0] < 0 else 'lower right'
    axes.legend(loc=place, fontsize=9, handlelength=1.6, edgecolor='none', framealpha=0.85)

"""All quantizers of a model at a glance."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import nn

from mmqnet.visualization.function import code_shares, relative_error, spread
from mmqnet.visualization.sources import (
    LayerValues,
    input_names,
    weight_names,
    weight_values,
)
from mmqnet.visualization.style import BLUE, ORANGE, new_figure, set_title, tidy

_MARKS: dict[str, dict[str, Any]] = {
    'weight': dict(color=BLUE, marker='o'),
    'input': dict(color=ORANGE, marker='D'),
}
_OFFSETS = {'weight': -0.14, 'input': 0.14}  # rows: both are readable where they coincide


def draw_overview(model: nn.Module, inputs: Mapping[str, LayerValues] | None = None) -> Figure:
    """Draw alpha, beta, the levels in use and the error of the hard function of each layer.

    Scales of a channel-wise quantizer are drawn as their median and range.

    Args:
        model: A calibrated quantized model.
        inputs: What :func:`collect_inputs` gave for the inputs that are to be drawn as well.

    Raises:
        ValueError: If the model has no quantizers, or one is not calibrated.

    Example:
        >>> import torch
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantLinear
        >>> weight, activation = dict(levels='pm4'), dict(levels='uint4')
        >>> model = torch.nn.Sequential(QuantLinear(
        ...     8, 4, weight_quantizer=weight, input_quantizer=activation))
        >>> batches = [torch.rand(2, 8), torch.rand(2, 8)]
        >>> _ = calibrate(model, batches, model)
        >>> draw_overview(model).get_suptitle()
        'Sequential: quantizers of 1 layers and blocks'
    """
    sources = [weight_values(model, name) for name in weight_names(model)]
    sources += (inputs or {}).values()
    if not sources:
        hint = ': collect their inputs' if input_names(model) else ''
        raise ValueError(f'the model has no quantized weights{hint}')
    rows = [n for n, _ in model.named_modules() if n in {source.layer for source in sources}]
    figure = new_figure(1.5 + 0.21 * len(rows))
    panels = figure.subplots(1, 4, sharey=True)
    for source in sources:
        row = rows.index(source.layer) + _OFFSETS[source.kind]
        _draw_row(panels, row, source)
    for axes, label in zip(
        panels,
        (r'output scale $\alpha$', r'input scale $\beta$', 'levels in use (%)', 'RMS error (%)'),
        strict=True,
    ):
        tidy(axes, grid='both')
        axes.set_xlabel(label)
    for axes in (panels[0], panels[1], panels[3]):
        _scale_log(axes)
    panels[2].set_xlim(0, 105)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    kinds = [kind for kind in _MARKS if any(source.kind == kind for source in sources)]
    handles = [panels[3].plot([], [], linestyle='', label=f'{k}s', **_MARKS[k])[0] for k in kinds]
    figure.legend(handles=handles, loc='outside upper right', ncols=2, frameon=False, fontsize=9)
    set_title(figure, f'{type(model).__name__}: quantizers of {len(rows)} layers and blocks')
    return figure


def _draw_row(panels: Sequence[Axes], row: float, source: LayerValues) -> None:
    used = 100 * float((code_shares(source) > 0).float().mean())
    gid = f'{source.kind}:{source.layer}'
    style = dict(_MARKS[source.kind], markersize=4.5, linestyle='', gid=gid)
    staircase = source.quantizer.staircase(source.values)
    for axes, scale in zip(panels, (staircase.alpha, staircase.beta), strict=False):
        low, middle, high = spread(scale)
        axes.plot(middle, row, **style)
        if high > low:
            axes.hlines(row, low, high, color=style['color'], linewidth=1.2)
    panels[2].plot(used, row, **style)
    panels[3].plot(100 * relative_error(source), row, **style)


def _scale_log(axes: Axes) -> None:
    """Set a logarithmic scale with a few plain numbers, also over less than a decade."""
    axes.set_xscale('log')
    low, high = axes.get_xlim()
    marks = (1, 2, 5) if high < 20 * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=marks))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter(NullFormatter())

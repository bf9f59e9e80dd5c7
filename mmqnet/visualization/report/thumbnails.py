"""Small pictures of quantization functions, as SVG that a page holds itself."""

import torch

from mmqnet.visualization.function import DrawnFunction
from mmqnet.visualization.style import BLUE, FILL, ORANGE

WIDTH, HEIGHT = 150, 48
_BINS = 50
_PATH = '<path d="{}" fill="{}" stroke="{}" stroke-width="1.4"/>'


def thumbnail(function: DrawnFunction) -> str:
    """Return the staircase over the histogram of the values, whose ends beyond it are orange.

    Args:
        function: As :func:`drawn_function` gives it.

    Example:
        >>> values = torch.linspace(-1, 1, 100)
        >>> levels, one = torch.tensor([-1.0, 0.0, 1.0]), torch.ones(())
        >>> picture = thumbnail(DrawnFunction(values, levels, torch.tensor([-0.5, 0.5]), one, one))
        >>> picture.startswith('<svg'), picture.count('<path')
        (True, 2)
    """
    low, high = function.limits
    counts = torch.histc(function.values.flatten().float(), _BINS, low, high)
    # most inputs are zeros: the square root keeps the others visible
    bars = (counts / counts.max().clamp_min(1)).sqrt().tolist()
    width = WIDTH / _BINS
    rectangles = [
        f'<rect x="{i * width:.1f}" y="{HEIGHT * (1 - bar):.1f}" width="{width:.1f}" '
        f'height="{HEIGHT * bar:.1f}" fill="{_color(function, low, high, i)}"/>'
        for i, bar in enumerate(bars)
        if bar > 0
    ]
    steps = _PATH.format(_steps(function, low, high), 'none', BLUE)
    frame = _PATH.format(f'M0 {HEIGHT}H{WIDTH}', 'none', FILL)
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg {size} role="img">{"".join(rectangles)}{frame}{steps}</svg>'


def _color(function: DrawnFunction, low: float, high: float, index: int) -> str:
    middle = low + (index + 0.5) * (high - low) / _BINS
    heights = function.heights
    return ORANGE if not float(heights[0]) <= middle <= float(heights[-1]) else FILL


def _steps(function: DrawnFunction, low: float, high: float) -> str:
    """Return the path of the staircase, from the left to the right end."""
    heights = function.heights.tolist()
    rise = heights[-1] - heights[0]
    ys = [HEIGHT - 3 - (HEIGHT - 6) * (y - heights[0]) / rise for y in heights]
    xs = [WIDTH * (x - low) / (high - low) for x in function.edges.tolist()]
    path = [f'M0 {ys[0]:.1f}']
    path += [f'H{x:.1f}V{y:.1f}' for x, y in zip(xs, ys[1:], strict=True)]
    return ''.join(path) + f'H{WIDTH}'

"""The style of all pictures, and their files."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmqnet import atomic

# Okabe and Ito's palette for colour-blind readers.
BLUE, ORANGE, RED = '#0072B2', '#E69F00', '#D55E00'
INK, FAINT, FILL = '#222222', '#8A9099', '#D3D9E0'
WIDTH = 8.3  # inches: as wide as a README shows a picture, at 100 dots an inch
_DPI = 160


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure outside matplotlib's global state; sizes in inches."""
    figure = Figure(figsize=(width, height), layout='constrained', facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, grid: Literal['x', 'y', 'both'] | None = None) -> None:
    """Remove superfluous lines and make the labels readable.

    Args:
        axes: What to tidy.
        grid: ``'x'``, ``'y'`` or ``'both'`` for faint lines behind the data.
    """
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color(FAINT)
    axes.tick_params(labelsize=9, color=FAINT, labelcolor=INK)
    axes.xaxis.label.set(size=10, color=INK)
    axes.yaxis.label.set(size=10, color=INK)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color='#E8EBEE', linewidth=0.8)


def set_title(figure: Figure, title: str, subtitle: str = '') -> None:
    """Set a title, and a smaller line below it, at the top left of the figure."""
    figure.suptitle(title, x=0.012, ha='left', size=12, weight='bold', color=INK)
    if subtitle:
        first = figure.axes[0]
        first.set_title(subtitle, loc='left', size=9, color='#555B63', pad=8)


def check_picture_path(path: str | Path) -> Path:
    """Check that a picture can be written to a path, before any work is done.

    Raises:
        ValueError: If the suffix is no format that matplotlib writes, or the path is a folder.

    Example:
        >>> check_picture_path('gap.png').name
        'gap.png'
    """
    path = Path(path)
    known = FigureCanvasAgg.get_supported_filetypes().keys() - {'pgf'}  # which needs LaTeX
    if path.suffix.lower().lstrip('.') not in known or not path.suffix:
        raise ValueError(
            f'a picture should end in one of {sorted("." + name for name in known)}, '
            f'but got {str(path)!r}'
        )
    if path.is_dir():
        raise ValueError(f'a picture should be a file, but {str(path)!r} is a folder')
    return path


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a picture atomically; its folder is created if it does not exist.

    Args:
        figure: What to draw.
        path: The file; its suffix is the format.

    Raises:
        ValueError: As :func:`check_picture_path`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), 'pictures', 'empty.svg')
        >>> save_figure(new_figure(height=2), path)
        >>> path.exists()
        True
    """
    path = check_picture_path(path)
    with atomic.replacing(path) as part:
        figure.savefig(part, format=path.suffix[1:], dpi=_DPI)

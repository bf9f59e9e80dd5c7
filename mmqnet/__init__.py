"""mmqnet: Quantization Networks for MMEngine, MMDetection and MMPretrain."""

from .compat import apply_all
from .version import __version__

__all__ = ['__version__']

apply_all()

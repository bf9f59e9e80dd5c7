"""mmqnet: Quantization Networks for MMEngine, MMDetection and MMPretrain."""

from .compat import apply_all
from .config_paths import register_configs
from .version import __version__

__all__ = ['__version__']

apply_all()
register_configs()

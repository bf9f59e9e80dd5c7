"""Fixtures of real runs."""

from toy_fixtures import configs, float_checkpoint

__all__ = ['configs', 'float_checkpoint']

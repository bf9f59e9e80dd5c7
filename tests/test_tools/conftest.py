"""Fixtures of real runs."""

from comparison_fixtures import benchmarks_on_path, start
from toy_fixtures import configs, float_checkpoint

__all__ = ['benchmarks_on_path', 'configs', 'float_checkpoint', 'start']

"""Data, configs and a float checkpoint for real runs, made once."""

from pathlib import Path

import pytest
from toy_data import make_configs, make_data, write_float_checkpoint


@pytest.fixture(scope='session')
def configs(tmp_path_factory) -> Path:
    """Return the folder of float.py, quantized.py and distributed.py."""
    folder = tmp_path_factory.mktemp('toy')
    return make_configs(folder / 'configs', make_data(folder / 'data'))


@pytest.fixture(scope='session')
def float_checkpoint(configs) -> str:
    return str(write_float_checkpoint(configs, configs / 'float.pth'))

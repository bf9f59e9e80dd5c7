"""Where MMEngine looks for our configs."""

from pathlib import Path

from mmengine.config import Config, config

import mmqnet
from mmqnet.config_paths import register_configs

PACKAGE = Path(mmqnet.__file__).resolve().parent


def test_mmengine_finds_the_package_that_is_imported():
    """MMEngine 0.10.7 takes an editable install to be in site-packages."""
    register_configs()
    register_configs()
    assert Path(config.get_installed_path('mmqnet')) == PACKAGE
    assert Path(config.get_installed_path('mmengine')) == Path(config.__file__).parents[1]


def test_a_base_of_mmqnet_is_read(tmp_path):
    (tmp_path / 'own.py').write_text("_base_ = 'mmqnet::_base_/quantization/w3-a8u.py'")
    recipe = Config.fromfile(tmp_path / 'own.py').quantization
    assert (recipe.weight.granularity, recipe.activation.levels) == ('channel', 'uint8')

"""Fixtures of exported files."""

import functools
import os
from dataclasses import dataclass

import pytest
from exported import small_detector
from filelock import FileLock
from mmengine.config import Config
from torch import nn
from toy_fixtures import configs, float_checkpoint

from mmqnet.export.detection import export_module
from mmqnet.export.export_module import ExportModule
from mmqnet.export.onnx import export_onnx

__all__ = ['configs', 'export', 'float_checkpoint']


@dataclass
class Exported:
    """A small detector and what became of it."""

    model: nn.Module
    config: Config
    module: ExportModule
    path: str


@pytest.fixture(scope='session')
def export(tmp_path_factory):
    """Export one of the small detectors, once for all processes of the tests."""
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        folder = folder.parent

    @functools.cache
    def run(name: str) -> Exported:
        model, config = small_detector(name)
        module = export_module(model, config, shape=(64, 64))
        path = folder / f'{name}.onnx'
        with FileLock(f'{path}.lock'):
            if not path.exists():
                export_onnx(
                    module,
                    [module.example()],
                    path,
                    output_names=module.output_names,
                    metadata=module.metadata,
                )
        return Exported(model, config, module, str(path))

    return run

"""Models of whole configs, calibrated on noise, as ONNX files up to the head's outputs."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import save_checkpoint
from networks import CONFIGS, make_batch, run_network
from torch import nn

import mmqnet  # noqa: F401 -- repairs upstream faults before anything else is imported
from mmqnet.calibration import calibrate
from mmqnet.export.export_module import ExportModule
from mmqnet.models import build_model

TOOL = CONFIGS.parent / 'tools' / 'export.py'
# The peak that wait4 knows of begins with that of the process that started this one.
PROGRAM = (
    'import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__"); '
    'print(*(line.split()[1] for line in open("/proc/self/status") if "VmHWM" in line))'
)


@dataclass(frozen=True)
class Cost:
    """What a process took, from its start to its end.

    Attributes:
        wall: Seconds.
        cpu: Seconds of all its threads.
        gibibytes: Peak of its resident memory.
    """

    wall: float
    cpu: float
    gibibytes: float


def quantized_module(name: str, size: int) -> ExportModule:
    """Return the model of a config, with random weights and calibrated on noise."""
    return _module(Config.fromfile(CONFIGS / name), size)


def write_float(name: str, size: int, path: Path) -> None:
    """Export the float model that a config quantizes."""
    from mmqnet.export.onnx import export_onnx

    config = Config.fromfile(CONFIGS / name)
    config.model.type = config.model.pop('architecture')
    del config.model['quantization']
    module = _module(config, size)
    export_onnx(
        module,
        [module.example()],
        path,
        output_names=module.output_names,
        metadata=module.metadata,
    )


def write_quantized(name: str, size: int, module: ExportModule, path: Path) -> Cost:
    """Save a checkpoint and export it by ``tools/export.py``, in a process of its own."""
    checkpoint = path.with_suffix('.pth')
    save_checkpoint(dict(state_dict=module.model.state_dict()), str(checkpoint))
    command = [sys.executable, '-W', 'ignore', '-c', PROGRAM, str(TOOL)]
    command += [str(CONFIGS / name), str(checkpoint)]
    command += ['--raw', '--out', str(path), '--shape', str(size), str(size)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        printed = output.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f'{TOOL.name} ended with {process.returncode}: {" ".join(command)}')
    peak = int(printed.splitlines()[-1]) / 2**20
    return Cost(wall, usage.ru_utime + usage.ru_stime, peak)


def _module(config: Config, size: int) -> ExportModule:
    MMLogger.get_instance('benchmarks', log_level='WARNING')  # no tables of layers on the screen
    torch.manual_seed(0)
    config.model.backbone.init_cfg = None  # nothing to download
    model: Any = build_model(config, allow_float=True)
    model.init_weights()
    for norm in model.modules():  # a residual branch that begins as 0 would have no scale
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
    batch = make_batch(config, 2, size)
    calibrate(model, [batch], lambda data: run_network(model, data))
    if config.default_scope == 'mmpretrain':
        from mmqnet.export.classification import export_module
    else:
        from mmqnet.export.detection import export_module
    return export_module(model, config, shape=(size, size), raw=True)

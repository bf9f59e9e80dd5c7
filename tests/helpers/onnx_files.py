"""Exporting small modules and running the files, for the tests of the exporter."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from toy_models import activation_config

from mmqnet.export.onnx import ExportReport, export_onnx
from mmqnet.quantizers import Quantizer, build_quantizer

_numbers = itertools.count()


@contextlib.contextmanager
def exported(folder: Path, module: nn.Module, *example: Tensor, **options: Any) -> Iterator[Any]:
    """Export a module with the output ``output``; yield the report."""
    path = folder / f'{next(_numbers)}.onnx'
    names = [f'input{i}' for i in range(len(example))]
    options = dict(output_names=['output'], input_names=names) | options
    report: ExportReport = export_onnx(module.eval(), example, path, **options)
    yield report
    path.unlink()


def session(path: str | Path, optimized: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimized:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def run(path: str | Path, *inputs: Tensor, optimized: bool = True) -> list[Tensor]:
    """Run a file in ONNX Runtime."""
    loaded = session(path, optimized)
    names = [value.name for value in loaded.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(np.asarray(y)) for y in loaded.run(None, feed)]


def operators(path: str | Path) -> list[str]:
    """Return the operators of a file, in order."""
    import onnx

    return [node.op_type for node in onnx.load(str(path)).graph.node]


@torch.no_grad()
def quantizer(
    levels: Any, thresholds: Sequence[float], alpha: float, beta: float, signed: bool = False
) -> Quantizer:
    """Return a calibrated quantizer of activations."""
    config = activation_config(levels, thresholds=tuple(thresholds), signed_levels=None)
    made = build_quantizer(config)
    made.thresholds.copy_(torch.tensor(thresholds))
    made.log_alpha.fill_(float(np.log(alpha)))
    made.log_beta.fill_(float(np.log(beta)))
    made.calibrated.fill_(True)
    made.refresh()
    return made


class Quantized(nn.Module):
    """A function of the input, then a quantizer."""

    def __init__(self, function: Any, made: Quantizer) -> None:
        super().__init__()
        self.function = function
        self.input_quantizer = made

    def forward(self, x: Tensor) -> Tensor:
        return self.input_quantizer(self.function(x))

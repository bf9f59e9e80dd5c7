"""LiteRT and ExecuTorch against the model; `make test-litert` runs this in its environment."""

import json

import numpy as np
import pytest
import torch
from exported import small_detector
from mmengine.config import Config
from qdq_cases import CASES, network
from torch import nn

REASON = 'needs the environment of `make setup-litert`; `make test-litert` runs it'
pytest.importorskip('ai_edge_litert', reason=REASON)
pytest.importorskip('executorch', reason=REASON)
from mmqnet.export.detection import export_module
from mmqnet.export.executorch import ExecuTorch
from mmqnet.export.litert import LiteRT
from mmqnet.export.qdq.export import compared, export_qdq
from mmqnet.export.runtime import ExportedRawDetector, evaluate_exported, open_session

TARGETS = dict(litert=LiteRT, executorch=ExecuTorch)
# Operators that compute on floats: none but those of float layers and of outputs in float.
IN_FLOAT = dict(
    litert=dict(depthwise={'CONV_2D', 'SUM', 'MEAN', 'MUL', 'QUANTIZE', 'DEQUANTIZE'}),
    executorch=dict(depthwise={'convolution', 'mean'}),
)


@pytest.mark.parametrize('backend', TARGETS)
@pytest.mark.parametrize('name', CASES)
def test_codes_of_each_layer(tmp_path, name, backend):
    model, x = network(name)
    target, path = TARGETS[backend](), tmp_path / 'net'
    names = [f'y{i}' for i in range(len(model(x)))]
    report, made = export_qdq(target, model, [x], path, output_names=names)
    assert report.num_bytes == path.stat().st_size
    report = compared(report, target, made, model, names, [[x]])
    assert min(codes.equal_but_ties for codes in report.codes) >= 0.998
    assert max(output.mean_difference for output in report.outputs) < 0.02
    if name == 'mixed':
        return
    floats = {op for op, counts in report.operators.items() if set(counts) - {'int8'}}
    assert floats <= IN_FLOAT[backend].get(name, set()), report.operators

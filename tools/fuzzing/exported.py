"""Damaged exported files, other files, and odd pictures, for what executes them."""

import importlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from mmengine.config import Config

from fuzzing.mutations import damage_file
from mmqnet.calibration import calibrate, run_model
from mmqnet.export.classification import export_module
from mmqnet.export.onnx import export_onnx
from mmqnet.export.runtime import BACKENDS, ExportedClassifier, ExportedDetector
from mmqnet.models import build_model

_SIZE = 32
_PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=36),
    dict(type='CenterCrop', crop_size=_SIZE),
    dict(type='PackInputs'),
]
_MODEL = dict(
    type='mmqnet.QuantizedModel',
    architecture='ImageClassifier',
    quantization=dict(  # what both runtimes compute
        weight=dict(levels='int4', thresholds='uniform', scale_init='mse'),
        activation=dict(levels='uint4', thresholds='uniform', scale_init='mse'),
    ),
    data_preprocessor=dict(num_classes=3, mean=[127.0] * 3, std=[60.0] * 3),
    backbone=dict(
        type='ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=2, strides=(1, 2),
        dilations=(1, 1), out_indices=(1,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=3, in_channels=8, loss=dict(type='CrossEntropyLoss')
    ),
)  # fmt: skip
_TEXTS = ('', 'null', '[]', '{}', '[1]', '[0, 0]', '[-1, 32]', '[1e9, 32]', '"x"', 'raw', 'é', '[[')
_SHAPES = ((0, 0, 3), (1, 1, 3), (40, 50, 3), (40, 50), (40, 50, 4), (3, 40, 50), (), (2, 3, 4, 3))


def prepare(folder: Path) -> Callable[[random.Random], Callable[[Path], None]]:
    """Export a classifier; return what makes a case of it."""
    for name in ('mmpretrain.structures', 'onnxruntime', 'openvino'):
        importlib.import_module(name)  # once, not in each case
    dataset = dict(type='CustomDataset', metainfo=dict(classes=['a', 'b', 'c']), pipeline=_PIPELINE)
    config = Config(
        dict(model=_MODEL, default_scope='mmpretrain', test_dataloader=dict(dataset=dataset))
    )
    model = build_model(config)
    batch = dict(inputs=[torch.randint(0, 255, (3, _SIZE, _SIZE), dtype=torch.uint8)] * 2)
    calibrate(model, [batch], lambda data: run_model(model, data))
    module = export_module(model, config, shape=(_SIZE, _SIZE))
    path = folder / 'model.onnx'
    export_onnx(
        module,
        [module.example()],
        str(path),
        output_names=module.output_names,
        metadata=module.metadata,
    )

    def case(rng: random.Random) -> Callable[[Path], None]:
        return lambda target: _try(path, target, rng)

    return case


def _try(source: Path, folder: Path, rng: random.Random) -> None:
    path = folder / 'model.onnx'
    shutil.copy(source, path)
    image: Any = np.full((40, 50, 3), 99, np.uint8)
    kind = rng.choice(('bytes', 'bytes', 'metadata', 'metadata', 'picture'))
    if kind == 'bytes':
        damage_file(path, rng)
    elif kind == 'metadata':
        _change_metadata(path, rng)
    else:
        image = _odd_picture(rng)
    reader = ExportedDetector if rng.random() < 0.1 else ExportedClassifier
    reader(str(path), rng.choice(BACKENDS), threads=1)(image)


def _change_metadata(path: Path, rng: random.Random) -> None:
    model = onnx.load(path)
    entries = model.metadata_props
    for _ in range(rng.choice((1, 1, 3))):
        i = rng.randrange(len(entries))
        if rng.random() < 0.3:
            del entries[i]
        else:
            entries[i].value = rng.choice((*_TEXTS, entries[i].value[:-1]))
    onnx.save(model, path)


def _odd_picture(rng: random.Random) -> Any:
    shape = rng.choice(_SHAPES)
    kinds = (np.uint8, np.float32, np.float64, np.int64, np.bool_, np.complex64, object)
    image = np.zeros(shape, rng.choice(kinds))
    if image.dtype.kind == 'f' and image.size:
        image.flat[0] = rng.choice((np.nan, np.inf, 1e30, -1.0))
    return rng.choice((image, image, image, image.tolist(), None, 'a.png'))

"""The files that ``accuracy.py`` compares, and how each is written."""

import argparse
import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from mmengine.config import Config
from runtimes import quantize_by_nncf, quantize_by_onnxruntime

from mmqnet.export.input_format import default_shape
from mmqnet.export.onnx import export_onnx
from mmqnet.export.pictures import pictures
from mmqnet.export.runtime import open_session
from mmqnet.models import build_model, check_calibrated, load_weights

BACKENDS = dict(onnxruntime='ONNX Runtime', openvino='OpenVINO')


@dataclass(frozen=True)
class Candidate:
    """A file to compare.

    Attributes:
        name: Of its row in the table.
        file: Its name in the folder.
        write: Writes it to a path, unless it is there.
        backends: Those that can run it.
    """

    name: str
    file: str
    write: Callable[[Path], None]
    backends: tuple[str, ...] = tuple(BACKENDS)


def candidates(args: argparse.Namespace, folder: Path) -> list[Candidate]:
    """Return the rows of the table, in the order in which their files can be written."""
    floats = folder / 'float.onnx'
    images = partial(training_pictures, Config.fromfile(args.float[0]), floats, args.images)
    found = [
        Candidate('float', floats.name, partial(export, *args.float)),
        Candidate(
            'quantize_static',
            'static.onnx',
            lambda path: quantize_by_onnxruntime(floats, images(), path),
        ),
        Candidate('NNCF', 'nncf.xml', partial(write_nncf, floats, images), ('openvino',)),
    ]
    for config, checkpoint in args.ours:
        name = Path(config).stem
        found.append(Candidate(name, f'{name}.onnx', partial(export, config, checkpoint)))
    return found


def export(config_file: str, checkpoint: str, path: Path) -> None:
    """Export a checkpoint with decoding and NMS."""
    from mmqnet.export.detection import export_module

    config = Config.fromfile(config_file)
    model = build_model(config, allow_float=True)
    load_weights(model, checkpoint)
    check_calibrated(model, checkpoint)
    module = export_module(model, config, shape=default_shape(config))
    names, metadata = module.output_names, module.metadata
    export_onnx(module, [module.example()], path, output_names=names, metadata=metadata)


def training_pictures(config: Config, path: Path, count: int) -> list[np.ndarray]:
    """Return random pictures of the training data, as the test pipeline makes them."""
    config, test = copy.deepcopy(config), config.test_dataloader.dataset
    dataset = config.train_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = test.pipeline
    config.test_dataloader.update(
        dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=True, seed=0)
    )
    metadata = open_session(str(path)).metadata
    return [image.numpy() for (image,) in pictures(config, metadata, count)]


def write_nncf(floats: Path, images: Callable[[], list[np.ndarray]], path: Path) -> None:
    """Write the float file after NNCF's quantization, in OpenVINO's own format."""
    import openvino

    model = openvino.Core().read_model(str(floats))
    names = list(open_session(str(floats)).metadata.to_strings().items())
    quantized = quantize_by_nncf(model, images())
    for name, text in names:
        quantized.set_rt_info(text, ['framework', name])
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        openvino.save_model(quantized, Path(folder, path.name))
        for part in (path.with_suffix('.bin'), path):
            Path(folder, part.name).replace(part)


def write(candidate: Candidate, path: Path) -> None:
    """Write a candidate's file, unless it is there."""
    if path.exists():
        return
    if path.suffix == '.xml':
        candidate.write(path)
        return
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        candidate.write(Path(folder, path.name))
        Path(folder, path.name).replace(path)


def size_of(path: Path) -> int:
    """Return the bytes of a file, with OpenVINO's weights beside it."""
    return sum(p.stat().st_size for p in (path, path.with_suffix('.bin')) if p.exists())

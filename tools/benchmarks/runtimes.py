"""Post-training int8 of the runtimes themselves, and what the processor can do."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = 4  # noise, to calibrate on
LAYERS = ('Conv', 'Gemm', 'MatMul')
OPENVINO_LAYERS = ('Convolution', 'GroupConvolution', 'MatMul')


def has_vnni() -> bool:
    """Return whether the processor adds products of 8 bits in 32 bits."""
    cpuinfo = Path('/proc/cpuinfo')
    text = cpuinfo.read_text() if cpuinfo.exists() else ''
    return 'avx512_vnni' in text or 'avx_vnni' in text


def noise(size: int) -> np.ndarray:
    """Return an image (1, 3, size, size) with values from 0 to 255."""
    return np.random.default_rng(0).uniform(0, 255, (1, 3, size, size)).astype(np.float32)


def behind_layers(nodes: Sequence[Any]) -> list[str]:
    """Return the names of an ONNX graph's nodes that no layer stands behind: decoding and NMS."""
    before: set[str] = set()
    behind = []
    for node in reversed(nodes):
        if node.op_type in LAYERS or before.intersection(node.output):
            before.update(node.input)
        else:
            behind.append(node.name)
    return behind


def quantize_by_onnxruntime(path: Path, images: Sequence[np.ndarray], out: Path) -> None:
    """Write ``quantize_static`` of a float file: a scale a channel, int8 weights, uint8 inputs.

    Args:
        path: The float file.
        images: (1, 3, H, W) each, to calibrate on.
        out: The file to write. What stands behind the last layers stays in float.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[dict[str, Any]] = iter([dict(input=x) for x in images])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.images, None)

    quantize_static(
        path,
        out,
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=behind_layers(onnx.load(str(path)).graph.node),
    )


def quantize_by_nncf(model: Any, images: Sequence[np.ndarray]) -> Any:
    """Return an OpenVINO model after NNCF's post-training quantization, settings as they are.

    What stands behind the last layers stays in float.

    Raises:
        ImportError: If NNCF is not installed.
    """
    import nncf

    before: set[str] = set()
    behind = []
    for op in reversed(model.get_ordered_ops()):
        name, kind = op.get_friendly_name(), op.get_type_name()
        if kind in OPENVINO_LAYERS or name in before:
            before.update(value.get_node().get_friendly_name() for value in op.input_values())
        elif kind not in ('Constant', 'Result', 'Parameter'):
            behind.append(name)
    ignored = nncf.IgnoredScope(names=behind, validate=False)
    return nncf.quantize(
        model, nncf.Dataset(images), subset_size=len(images), ignored_scope=ignored
    )


def onnxruntime_session(path: Path, threads: int) -> Any:
    """Return a function of an image that runs a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda image: session.run(None, dict(input=image))


def openvino_session(path: Path, threads: int, size: int, nncf: bool = False) -> Any:
    """Return the same with OpenVINO; with ``nncf`` after its post-training quantization.

    Raises:
        ImportError: If OpenVINO, or NNCF where it is asked for, is not installed.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape([1, 3, size, size])
    if nncf:
        model = quantize_by_nncf(model, [noise(size)] * IMAGES)
    settings = dict(INFERENCE_PRECISION_HINT='f32', INFERENCE_NUM_THREADS=threads)
    compiled = core.compile_model(model, 'CPU', settings)
    request = compiled.create_infer_request()
    return lambda image: request.infer([image])

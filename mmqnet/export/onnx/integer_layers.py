"""What runtimes make of a file: which layers they compute in integers."""

import importlib.util
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from mmqnet.export.onnx.twins import TWIN
from mmqnet.export.packages import require

_LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
# What ONNX Runtime computes such a layer with, from integers.
_INTEGER_OPS = (
    'QLinearConv', 'ConvInteger', 'QGemm', 'QLinearMatMul', 'MatMulInteger',
    'MatMulIntegerToFloat',
)  # fmt: skip
# What the runtimes add to the names of nodes.
_ADDED = re.compile(r'(_token_\d+|_nchwc|_quant)+$|/WithoutBiases(/.*)?$')
_OPENVINO_LAYERS = ('Convolution', 'Deconvolution', 'FullyConnected', 'MatMul')


@dataclass(frozen=True)
class LayerPrecision:
    """A layer of a file in two runtimes.

    Attributes:
        name: Name of the node: of the module.
        kind: The ONNX operator.
        quantized: Whether the file holds its weights as integers.
        onnxruntime: Whether ONNX Runtime computes it in integers.
        openvino: The type in which OpenVINO computes it, such as ``'u8'`` or ``'f32'``;
            ``'refused'`` if it cannot run the file; empty if it was not asked.
    """

    name: str
    kind: str
    quantized: bool
    onnxruntime: bool
    openvino: str


def count_integer_layers(path: str | Path, openvino: bool = True) -> list[LayerPrecision]:
    """Load a file in the runtimes and return how they compute its layers, in order.

    Args:
        path: The file.
        openvino: Whether OpenVINO is asked too, if it is installed.

    Raises:
        ImportError: If ONNX Runtime is missing.
        ValueError: If ONNX Runtime refuses the file.
    """
    require('onnxruntime')
    graph = onnx.load(str(path), load_external_data=False).graph
    made_by = {output: node for node in graph.node for output in node.output}
    in_ort = _onnxruntime_layers(Path(path))
    has_openvino = openvino and importlib.util.find_spec('openvino') is not None
    in_openvino = _openvino_layers(Path(path)) if has_openvino else {}
    missing = 'refused' if in_openvino is None else ''
    return [
        LayerPrecision(
            node.name,
            node.op_type,
            _is_dequantized(made_by.get(node.input[1])),
            node.name in in_ort,
            # it makes one node of twins again
            (in_openvino or {}).get(node.name.removesuffix(TWIN), missing),
        )
        for node in graph.node
        if node.op_type in _LAYERS and not node.domain
    ]


def _is_dequantized(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == 'DequantizeLinear'


def _onnxruntime_layers(path: Path) -> set[str]:
    """Return the names of the layers that ONNX Runtime computes in integers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of writing a graph for this machine
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, 'optimized.onnx')
        # what the optimized graph holds is not read: large tensors go into a file of their own
        options.add_session_config_entry(
            'session.optimized_model_external_initializers_file_name', 'optimized.data'
        )
        try:
            onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        except Exception as error:  # its classes of errors have no common base but this
            raise ValueError(f'ONNX Runtime refuses {str(path)!r}: {_first_line(error)}') from error
        nodes = onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node
    return {_ADDED.sub('', node.name) for node in nodes if node.op_type in _INTEGER_OPS}


def _openvino_layers(path: Path) -> dict[str, str] | None:
    """Return the type in which OpenVINO computes each layer, by name; None if it refuses."""
    import openvino

    core = openvino.Core()
    try:
        compiled = core.compile_model(core.read_model(str(path)), 'CPU')
    except RuntimeError:  # it lacks an operator: the file is for ONNX Runtime all the same
        return None
    found: dict[str, str] = {}
    for operation in compiled.get_runtime_model().get_ops():
        notes = {key: value.astype(str) for key, value in operation.get_rt_info().items()}
        if notes.get('layerType') in _OPENVINO_LAYERS:
            for name in notes['originalLayersNames'].split(','):
                found.setdefault(_ADDED.sub('', name), notes['runtimePrecision'])
    return found


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), '')

"""A file in ONNX Runtime whose layers are each given the codes of their inputs."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from mmqnet.export.onnx.graph import is_op


@dataclass(frozen=True)
class ForcedSession:
    """A session that computes each quantizer's codes from given codes of the ones before it.

    Attributes:
        session: The onnxruntime.InferenceSession.
        inputs: Names of the inputs of the file.
        given: From the names of quantizers to those of the inputs with their codes.
        codes: From the names of quantizers to those of the outputs with their codes.
    """

    session: Any
    inputs: list[str]
    given: dict[str, str]
    codes: dict[str, str]

    @classmethod
    def of(cls, path: Path, names: Collection[str]) -> 'ForcedSession':
        """Load a file that :func:`mmqnet.export.onnx.export_onnx` wrote.

        Args:
            path: The file.
            names: Names of the quantizers of activations.
        """
        import onnxruntime

        model = ir.load(path)
        inputs = [value.name or '' for value in model.graph.inputs]
        given, codes = _cut(model.graph, names)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        ir.external_data.load_to_model(model)
        session = onnxruntime.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=['CPUExecutionProvider']
        )
        return cls(session, inputs, given, codes)


def _cut(graph: ir.Graph, names: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Cut a graph at the codes of activations; return the names of the new inputs and outputs."""
    given: dict[str, str] = {}
    codes: dict[str, str] = {}
    computed: dict[str, ir.Value] = {}
    for node in list(graph):
        if node.name is None or node.name not in names:
            continue
        reader = node
        if is_op(node, 'Gather') and node.inputs[1] is not None:  # a table of values
            cast = node.inputs[1].producer()
            reader = node if cast is None else cast
        value = reader.inputs[0]
        if value is None or value.name is None:
            continue
        codes[node.name], computed[value.name] = value.name, value
        name = given[node.name] = f'{node.name}.given'
        new = ir.Value(name=name, type=ir.TensorType(ir.DataType.UINT8), shape=value.shape)
        graph.inputs.append(new)
        reader.replace_input_with(0, new)
    graph.outputs.clear()
    graph.outputs.extend(computed.values())
    return given, codes

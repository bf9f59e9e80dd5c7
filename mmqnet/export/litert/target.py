"""From a graph with quantize and dequantize nodes to a ``.tflite`` file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from mmqnet.export.litert.interpreter import LiteRTProgram
from mmqnet.export.packages import require
from mmqnet.export.qdq.target import Converted, Run, Target, conversion_error, count
from mmqnet.export.quiet import quiet


class LiteRT(Target):
    """LiteRT, by ``litert-torch``."""

    name = 'LiteRT'
    codes = False  # its converter refuses int8 constants

    def convert(
        self, module: GraphModule, example: Sequence[Tensor], metadata: Mapping[str, str]
    ) -> Converted:
        """Convert a graph."""
        require('litert_torch', 'ai_edge_litert', extra='litert')
        import litert_torch
        from ai_edge_litert.tools import flatbuffer_utils
        from litert_torch.quantize.pt2e_quantizer import (
            PT2EQuantizer,
            get_symmetric_quantization_config,
        )
        from litert_torch.quantize.quant_config import QuantConfig

        # it quantizes nothing here: it tells the converter to take the nodes for what they are
        quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config())
        with quiet():
            try:
                made = litert_torch.convert(
                    module, tuple(example), quant_config=QuantConfig(quantizer)
                ).model_content()
            except (ValueError, RuntimeError, NotImplementedError) as error:
                raise conversion_error(self.name, error) from error
        model = flatbuffer_utils.read_model_from_bytearray(bytearray(made))
        for name, text in metadata.items():
            _add_metadata(model, name, text.encode())
        content = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
        return Converted(content, _operators(model))

    def load(self, content: bytes) -> Run:
        """Return what runs a file."""
        program = LiteRTProgram(content)

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            outputs = program.run([x.numpy() for x in inputs])
            return [torch.from_numpy(y) for y in outputs]

        return run


def _add_metadata(model: Any, name: str, text: bytes) -> None:
    from ai_edge_litert import schema_py_generated as schema

    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(text, np.uint8)
    entry.name, entry.buffer = name, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]


def _operators(model: Any) -> dict[str, dict[str, int]]:
    """Count operators by the type of their first input."""
    from ai_edge_litert.tools import flatbuffer_utils

    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
            kind = flatbuffer_utils.type_to_name(graph.tensors[operator.inputs[0]].type)
            found.append((name, kind.lower()))
    return count(found)

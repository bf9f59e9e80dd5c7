"""Running a ``.tflite`` file; ``ai-edge-litert`` is enough for it."""

from collections.abc import Sequence

import numpy as np

from mmqnet.export.packages import require
from mmqnet.export.qdq.target import METADATA

_INT8 = np.iinfo(np.int8)


class LiteRTProgram:
    """A file, loaded by LiteRT's interpreter.

    The converter makes a quantized input or output of the graph an int8 tensor of the file. Here
    all are float.

    Args:
        content: Of the file.
        threads: Of one inference. Default: None, one.

    Raises:
        ImportError: If LiteRT is not installed.
        ValueError: If LiteRT cannot load it.
    """

    def __init__(self, content: bytes, threads: int | None = None) -> None:
        require('ai_edge_litert', extra='litert')
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_content=content, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.inputs = self.interpreter.get_input_details()
        self.outputs = self.interpreter.get_output_details()

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs, float32, for inputs of float32."""
        for details, x in zip(self.inputs, inputs, strict=True):
            self.interpreter.set_tensor(details['index'], _encoded(x, details))
        self.interpreter.invoke()
        return [_decoded(self.interpreter.get_tensor(d['index']), d) for d in self.outputs]


def read_metadata(content: bytes) -> str | None:
    """Return the JSON that a file says about itself, or None if it is not mmqnet's."""
    require('ai_edge_litert', extra='litert')
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == METADATA.encode():
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).decode()
    return None


def _encoded(x: np.ndarray, details: dict) -> np.ndarray:
    if details['dtype'] is not np.int8:
        return x
    scale, zero_point = details['quantization']
    return np.clip(np.rint(x / scale) + zero_point, _INT8.min, _INT8.max).astype(np.int8)


def _decoded(y: np.ndarray, details: dict) -> np.ndarray:
    if details['dtype'] is not np.int8:
        return y
    scale, zero_point = details['quantization']
    return (y.astype(np.float32) - zero_point) * np.float32(scale)

"""One interface to all runtimes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmqnet.checks import check_choice, check_positive_integer
from mmqnet.export.backends import BACKENDS
from mmqnet.export.metadata import FileMetadata
from mmqnet.export.packages import require
from mmqnet.export.runtime.mobile_sessions import ExecuTorchSession, LiteRTSession
from mmqnet.export.runtime.session import Arrays, Session, cannot_run


class OnnxRuntimeSession(Session):
    """A file in ONNX Runtime, on the CPU."""

    name = 'ONNX Runtime'

    def __init__(self, path: str, threads: int | None) -> None:
        require('onnxruntime')
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # its errors have no common class of their own
            raise cannot_run(self.name, path, error) from error
        first = self.session.get_inputs()[0]
        self.input = first.name
        self.outputs = [output.name for output in self.session.get_outputs()]
        strings = self.session.get_modelmeta().custom_metadata_map
        super().__init__(path, strings, first.shape[0] if first.shape else 0)

    def _run(self, images: np.ndarray) -> Arrays:
        found = self.session.run(self.outputs, {self.input: images})
        return dict(zip(self.outputs, found, strict=True))


class OpenVINOSession(Session):
    """A file in OpenVINO, on the CPU.

    Float layers are computed in float32: by default OpenVINO takes bfloat16 where the CPU has it.
    A file for any number of images is run with one at a time: with a batch whose size is open
    OpenVINO 2026.4 gives all channels of the first quantized convolution the bias of channel 0.
    """

    name = 'OpenVINO'

    def __init__(self, path: str, threads: int | None) -> None:
        require('openvino')
        import openvino

        settings: dict[str, Any] = dict(INFERENCE_PRECISION_HINT='f32')
        if threads is not None:
            settings['INFERENCE_NUM_THREADS'] = threads
        core = openvino.Core()
        try:
            model = core.read_model(path)
            given = model.inputs[0].get_partial_shape()
            if given[0].is_dynamic:
                given[0] = 1
                model.reshape(given)
            self.compiled = core.compile_model(model, 'CPU', settings)
        except Exception as error:  # a RuntimeError, or of text in the file that is none
            raise cannot_run(self.name, path, error) from error
        strings = {
            name: str(model.get_rt_info(['framework', name]).value)
            for name in FileMetadata.names()
            if model.has_rt_info(['framework', name])
        }
        super().__init__(path, strings, given[0].get_length())

    def _run(self, images: np.ndarray) -> Arrays:
        found = self.compiled([images])
        return {output.get_any_name(): found[output] for output in self.compiled.outputs}


_RUNTIMES = (OnnxRuntimeSession, OpenVINOSession, LiteRTSession, ExecuTorchSession)
SESSIONS: dict[str, Callable[[str, int | None], Session]] = dict(
    zip(BACKENDS, _RUNTIMES, strict=True)
)


def open_session(path: str, backend: str = 'onnxruntime', threads: int | None = None) -> Session:
    """Load an exported file.

    Args:
        path: The file, ``.onnx``, ``.tflite`` or ``.pte``.
        backend: ``'onnxruntime'``, ``'openvino'``, ``'litert'`` or ``'executorch'``.
        threads: Of one inference. Default: None, as the runtime chooses.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If the runtime is not installed.
        ValueError: If it is no file of mmqnet's, or the runtime cannot execute it.
    """
    check_choice(backend, BACKENDS, 'backend')
    if threads is not None:
        check_positive_integer(threads, 'threads')
    if not Path(path).is_file():
        raise FileNotFoundError(f'the file {path!r} does not exist')
    return SESSIONS[backend](str(path), threads)

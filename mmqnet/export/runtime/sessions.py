"""One interface to ONNX Runtime and OpenVINO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmqnet.checks import check_choice, check_positive_integer
from mmqnet.export.metadata import FileMetadata
from mmqnet.export.packages import require

Arrays = dict[str, np.ndarray]


class Session:
    """An exported file, loaded by a runtime; the base of those below.

    Attributes:
        path: The file.
        metadata: What it says about itself.
        batch: How many images it takes; 0 for any number.
    """

    name: str

    def __init__(self, path: str, strings: Mapping[str, str], batch: Any) -> None:
        self.path = path
        self.metadata = FileMetadata.from_strings(strings, path)
        self.batch = batch if isinstance(batch, int) else 0

    def run(self, images: np.ndarray) -> Arrays:
        """Return the outputs, by their names.

        Args:
            images: (N, 3, H, W) float32, of the file's height and width.

        Raises:
            ValueError: If the size is another.
        """
        expected = (3, *self.metadata.input_size)
        if images.shape[1:] != expected:
            raise ValueError(
                f'the images should be of shape {expected}, as {self.path!r} takes them, but got '
                f'{images.shape[1:]}'
            )
        if not self.batch:
            return self._run(images)
        parts = [
            self._run_part(images[i : i + self.batch]) for i in range(0, len(images), self.batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run_part(self, images: np.ndarray) -> Arrays:
        """Run as many images as the file takes, with empty ones where there are fewer."""
        missing = self.batch - len(images)
        filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        return {name: value[: len(images)] for name, value in self._run(filled).items()}

    def _run(self, images: np.ndarray) -> Arrays:
        raise NotImplementedError


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
            raise _cannot_run(self.name, path, error) from error
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
            self.compiled = core.compile_model(model, 'CPU', settings)
        except Exception as error:  # a RuntimeError, or of text in the file that is none
            raise _cannot_run(self.name, path, error) from error
        strings = {
            name: str(model.get_rt_info(['framework', name]).value)
            for name in FileMetadata.names()
            if model.has_rt_info(['framework', name])
        }
        size = model.inputs[0].get_partial_shape()[0]
        super().__init__(path, strings, size.get_length() if size.is_static else 0)

    def _run(self, images: np.ndarray) -> Arrays:
        found = self.compiled([images])
        return {output.get_any_name(): found[output] for output in self.compiled.outputs}


SESSIONS = dict(onnxruntime=OnnxRuntimeSession, openvino=OpenVINOSession)


def open_session(path: str, backend: str = 'onnxruntime', threads: int | None = None) -> Session:
    """Load an exported file.

    Args:
        path: The ``.onnx`` file.
        backend: ``'onnxruntime'`` or ``'openvino'``.
        threads: Of one inference. Default: None, as the runtime chooses.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If the runtime is not installed.
        ValueError: If it is no file of mmqnet's, or the runtime cannot execute it.
    """
    check_choice(backend, tuple(SESSIONS), 'backend')
    if threads is not None:
        check_positive_integer(threads, 'threads')
    if not Path(path).is_file():
        raise FileNotFoundError(f'the file {path!r} does not exist')
    return SESSIONS[backend](str(path), threads)


def _cannot_run(runtime: str, path: str, error: Exception) -> ValueError:
    """Return one line: the last one of a runtime's message says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ValueError(f'{runtime} cannot run {path!r}: {lines[-1] if lines else error}')

"""Writing an ONNX file: checked, atomically, with external data where it is too large."""

import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir

from mmqnet.atomic import replacing

LARGEST_FILE = 2**31 - 2**20  # protobuf's limit, less what names and nodes take
SMALLEST_EXTERNAL = 1024  # bytes of a tensor


def save(model: ir.Model, path: str | Path) -> Path | None:
    """Write a model that ``onnx.checker`` accepts; the files are complete or as they were.

    Returns:
        Path or None: The file with the weights, ``NAME.DIGEST.data``, where one file would be too
        large. Those of former exports to the same path are deleted.

    Raises:
        ValueError: If the checker refuses the model.
        OSError: If it cannot be written, for instance since the disk is full.
    """
    path = Path(path)
    values = [value.const_value for value in model.graph.initializers.values()]
    if sum(tensor.nbytes for tensor in values if tensor is not None) <= LARGEST_FILE:
        with replacing(path) as part:
            ir.save(model, part)
            _check(part)
        return None
    # by its content: the former file and its data stay a pair until the new one replaces both
    data = path.with_name(f'{path.name}.{_digest(values)}.data')
    folder = path.with_name(f'.{path.name}.parts')  # the model names its data file, relatively
    folder.mkdir(parents=True, exist_ok=True)
    try:
        ir.save(
            model,
            folder / path.name,
            external_data=data.name,
            size_threshold_bytes=SMALLEST_EXTERNAL,
        )
        _check(folder / path.name)
        (folder / data.name).replace(data)
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder)
    own = re.compile(rf'{re.escape(path.name)}\.[0-9a-f]{{8}}\.data')
    for former in path.parent.iterdir():
        if former != data and own.fullmatch(former.name):
            former.unlink()
    return data


def _digest(tensors: Iterable[ir.TensorProtocol | None]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            digest.update(tensor.tobytes())
    return digest.hexdigest()[:8]


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = str(error).strip().splitlines()[0]
        raise ValueError(f'the exported model is not valid ONNX: {line}') from error

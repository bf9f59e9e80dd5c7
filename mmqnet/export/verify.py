"""Agreement of an exported file with the model, quantizer by quantizer."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmqnet.export.agreement import CodeAgreement, inputs_of_quantizers
from mmqnet.export.freeze import frozen
from mmqnet.export.onnx.forced import ForcedSession
from mmqnet.export.onnx.functions import CodeFunction
from mmqnet.export.packages import require
from mmqnet.quantizers import Staircase


@torch.no_grad()
def compare_codes(
    path: str | Path, module: nn.Module, inputs: Iterable[Sequence[Tensor]]
) -> list[CodeAgreement]:
    """Compare the codes of all quantized activations of a file in ONNX Runtime with the model's.

    Each layer of the file gets the codes that the model computes, so that differences do not add
    up: what is compared is one layer, or what stands between two quantizers.

    Args:
        path: What :func:`mmqnet.export.onnx.export_onnx` wrote.
        module: The module that it was given.
        inputs: Batches of its inputs.

    Returns:
        list[CodeAgreement]: In the order in which the model runs.
    """
    require('onnxruntime')
    copy = frozen(module)
    session: ForcedSession | None = None
    found: dict[str, CodeAgreement] = {}
    for batch in inputs:
        seen = inputs_of_quantizers(copy, batch)
        session = session or ForcedSession.of(Path(path), seen)
        feed = {name: x.numpy() for name, x in zip(session.inputs, batch, strict=True)}
        for name, given in session.given.items():
            feed[given] = _codes(*seen[name])
        outputs = sorted(set(session.codes.values()))
        results = dict(zip(outputs, session.session.run(outputs, feed), strict=True))
        for name, output in session.codes.items():
            _add(found.setdefault(name, CodeAgreement(name)), results[output], *seen[name])
    return list(found.values())


def _codes(x: Tensor, function: Staircase) -> np.ndarray:
    return np.array(CodeFunction.of(function).codes, np.uint8)[function.codes(x).numpy()]


def _add(agreement: CodeAgreement, codes: np.ndarray, x: Tensor, function: Staircase) -> None:
    levels = torch.from_numpy(np.searchsorted(CodeFunction.of(function).codes, codes))
    agreement.add(levels, x, function)

"""Agreement of an exported file with the model, quantizer by quantizer."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmqnet.export.freeze import FrozenQuantizer, frozen
from mmqnet.export.onnx.export import PREFIX
from mmqnet.export.onnx.forced import ForcedSession
from mmqnet.export.onnx.functions import CodeFunction
from mmqnet.export.packages import require
from mmqnet.quantizers import Staircase

_TIE = 1e-5  # of the least distance of two thresholds: nearer, rounding decides


@dataclass
class CodeAgreement:
    """How the codes of one quantizer agree, on the same input of the layer before it.

    Attributes:
        name: Name of the quantizer; ``#1``, ``#2`` behind it for further runs of the same module.
        count: How many codes were compared.
        different: How many differ.
        off_by_one: How many differ by one level.
        ties: How many of those that differ stand at a threshold but for the rounding of floats.
    """

    name: str
    count: int = 0
    different: int = 0
    off_by_one: int = 0
    ties: int = 0

    @property
    def equal(self) -> float:
        """The share of equal codes."""
        return 1 - self.different / max(self.count, 1)

    @property
    def equal_but_ties(self) -> float:
        """The share of codes that are equal or at a threshold."""
        return 1 - (self.different - self.ties) / max(self.count, 1)


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
        seen = _record(copy, batch)
        session = session or ForcedSession.of(Path(path), seen)
        feed = {name: x.numpy() for name, x in zip(session.inputs, batch, strict=True)}
        for name, given in session.given.items():
            feed[given] = _codes(*seen[name])
        outputs = sorted(set(session.codes.values()))
        results = dict(zip(outputs, session.session.run(outputs, feed), strict=True))
        for name, output in session.codes.items():
            _add(found.setdefault(name, CodeAgreement(name)), results[output], *seen[name])
    return list(found.values())


def _record(model: nn.Module, batch: Sequence[Tensor]) -> dict[str, tuple[Tensor, Staircase]]:
    """Run a frozen model and return the input of each quantizer of activations, by its name."""
    seen: dict[str, tuple[Tensor, Staircase]] = {}
    runs: Counter[str] = Counter()

    def note(name: str) -> Callable[[FrozenQuantizer, tuple[Tensor]], None]:
        def hook(quantizer: FrozenQuantizer, args: tuple[Tensor]) -> None:
            key = f'{name}#{runs[name]}' if runs[name] else name
            runs[name] += 1
            seen[key] = (args[0].clone(), quantizer.function)

        return hook

    handles = [
        module.register_forward_pre_hook(note(name.removeprefix(PREFIX)))
        for name, module in model.named_modules()
        if isinstance(module, FrozenQuantizer) and module.weight is None
    ]
    model(*batch)
    for handle in handles:
        handle.remove()
    return seen


def _codes(x: Tensor, function: Staircase) -> np.ndarray:
    return np.array(CodeFunction.of(function).codes, np.uint8)[function.codes(x).numpy()]


def _add(agreement: CodeAgreement, codes: np.ndarray, x: Tensor, function: Staircase) -> None:
    levels = torch.from_numpy(np.searchsorted(CodeFunction.of(function).codes, codes))
    wanted = function.codes(x)
    distance = (levels - wanted).abs()
    differ = distance > 0
    scaled = function.beta * x[differ]
    thresholds = function.thresholds
    nearest = (scaled[:, None] - thresholds).abs().amin(1)
    gap = thresholds.diff().min() if len(thresholds) > 1 else thresholds.abs().max() + 1
    agreement.count += x.numel()
    agreement.different += int(differ.sum())
    agreement.off_by_one += int((distance == 1).sum())
    agreement.ties += int((nearest <= _TIE * gap).sum())

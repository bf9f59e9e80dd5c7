"""Agreement of the results of an exported file with those of the model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmqnet.export.packages import require

_LEAST_SCORE = 0.3
_LEAST_IOU = 0.95


@dataclass
class OutputAgreement:
    """How the results agree, each computed from the picture itself.

    Attributes:
        what: What is counted: boxes of at least 0.3, with a twin of the same class and an IoU of
            0.95 in the file's result; or pictures, of the same class.
        count: How many the model finds.
        matched: How many of them the file finds too.
    """

    what: str
    count: int = 0
    matched: int = 0

    @property
    def share(self) -> float:
        """The share of what is matched; 1 if there was nothing to find."""
        return self.matched / self.count if self.count else 1.0


@torch.no_grad()
def compare_outputs(
    path: str | Path, module: nn.Module, inputs: Iterable[Sequence[Tensor]]
) -> OutputAgreement | None:
    """Compare boxes, or classes of pictures, of a file in ONNX Runtime with the model's.

    Args:
        path: What :func:`mmqnet.export.onnx.export_onnx` wrote.
        module: The module that it was given, with ``output_names``.
        inputs: Batches of its inputs.

    Returns:
        OutputAgreement or None: None for raw outputs.
    """
    require('onnxruntime')
    import onnxruntime

    outputs = tuple(module.output_names)  # type: ignore[arg-type]
    if outputs not in (('dets', 'labels'), ('scores',)):
        return None
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [value.name for value in session.get_inputs()]
    found = OutputAgreement('pictures' if outputs == ('scores',) else 'boxes')
    for batch in inputs:
        feed = {name: x.numpy() for name, x in zip(names, batch, strict=True)}
        got = [torch.from_numpy(y) for y in session.run(list(outputs), feed)]
        for wanted, other in zip(
            zip(*module(*batch), strict=True), zip(*got, strict=True), strict=True
        ):
            count, matched = (_classes if len(wanted) == 1 else _boxes)(*wanted, *other)
            found.count += count
            found.matched += matched
    return found


def _classes(wanted: Tensor, other: Tensor) -> tuple[int, int]:
    return 1, int(wanted.argmax() == other.argmax())


def _boxes(wanted: Tensor, labels: Tensor, other: Tensor, other_labels: Tensor) -> tuple[int, int]:
    """Return how many boxes there are, and how many have a twin of their own."""
    sure = wanted[:, 4] >= _LEAST_SCORE
    wanted, labels = wanted[sure], labels[sure]
    ious = _iou(wanted[:, None, :4], other[None, :, :4])
    fits = (ious >= _LEAST_IOU) & (labels[:, None] == other_labels)
    taken: set[int] = set()
    for row in fits:
        free = [j for j in row.nonzero().flatten().tolist() if j not in taken]
        taken.update(free[:1])
    return len(wanted), len(taken)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of boxes x1, y1, x2, y2 in the last dimension."""
    corner = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    overlap = corner.clamp(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b)]
    return overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-9)

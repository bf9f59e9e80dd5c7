"""Any module with quantized layers, or none, as an ONNX file that runtimes execute in integers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common as passes
from torch import Tensor, nn

from mmqnet.checks import check_choice
from mmqnet.export.agreement import PREFIX
from mmqnet.export.freeze import frozen
from mmqnet.export.onnx.activations import Functions, split
from mmqnet.export.onnx.guards import guard_float_layers
from mmqnet.export.onnx.layers import (
    FLOAT_LAYERS,
    SATURATION,
    find_layers,
    write_layer,
    write_other_weights,
)
from mmqnet.export.onnx.lower import (
    MANY_STEPS,
    THRESHOLDS,
    TREES,
    changed_on_grid,
    form_of,
    lower,
)
from mmqnet.export.onnx.moves import move_up
from mmqnet.export.onnx.report import SATURATION_FLAG, ExportedLayer, ExportReport
from mmqnet.export.onnx.save import save
from mmqnet.export.onnx.translate import translate
from mmqnet.export.onnx.twins import add_twins
from mmqnet.version import __version__

OPSET = 21  # the first with int4; OpenVINO refuses int2, which opset 25 brings


def export_onnx(
    module: nn.Module,
    example: Sequence[Tensor],
    path: str | Path,
    *,
    input_names: Sequence[str] = ('input',),
    output_names: Sequence[str],
    dynamic_batch: bool = True,
    thresholds: str = 'exact',
    float_layers: str = 'small',
    saturation: str = 'warn',
    metadata: Mapping[str, str] | None = None,
    opset: int = OPSET,
) -> ExportReport:
    """Write a module as an ONNX file.

    Args:
        module: In evaluation mode; calibrated, if it is quantized. Names of nodes are those of its
            modules; a wrapper holds the model as ``model``, which the names leave out.
        example: Inputs, whose sizes are those of the file.
        path: The file.
        input_names: Names of the inputs.
        output_names: Names of the outputs.
        dynamic_batch: Whether the first dimension of inputs and outputs may vary.
        thresholds: ``'exact'``, or ``'grid'``: where activations have thresholds that are not
            halfway between evenly spaced levels, move them to a grid of 8 bits.
        float_layers: What quantized layers that end in float hold: ``'small'``, integers, which
            OpenVINO computes with; or ``'fast'``, floats, with which ONNX Runtime is faster.
        saturation: ``'warn'`` of weights with which sums saturate on x86 CPUs without VNNI; or
            ``'avoid'`` it: round them to fewer bits (±64 with codes of 8 bits).
        metadata: Text for the file's ``metadata_props``.
        opset: Version of the ONNX operators, at least 21.

    Returns:
        ExportReport: What became of each quantized layer.

    Raises:
        RuntimeError: If a quantizer has not been calibrated.
        ValueError: If the module is in training mode or cannot be expressed, or an argument is
            wrong.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from mmqnet.calibration import calibrate
        >>> from mmqnet.layers import QuantConv2d
        >>> integers = dict(weight_quantizer=dict(levels='pm4'),
        ...                 input_quantizer=dict(levels='uint8', thresholds='uniform'))
        >>> model = nn.Sequential(QuantConv2d(3, 8, 3, **integers), nn.ReLU(),
        ...                       QuantConv2d(8, 8, 3, **integers)).eval()
        >>> x = torch.rand(1, 3, 8, 8)
        >>> _ = calibrate(model, [x], model)
        >>> report = export_onnx(model.eval(), [x], f'{tempfile.mkdtemp()}/small.onnx',
        ...                      output_names=['output'])
        >>> [layer.reason for layer in report.layers]
        ['', 'its output is used in float']
    """
    check_choice(thresholds, THRESHOLDS, 'thresholds')
    check_choice(float_layers, FLOAT_LAYERS, 'float_layers')
    check_choice(saturation, SATURATION, 'saturation')
    if opset < OPSET:
        raise ValueError(
            f'`opset` should be at least {OPSET}, the first with int4, but got {opset}'
        )
    model = translate(frozen(module), example, input_names, output_names, dynamic_batch, opset)
    graph, functions = model.graph, Functions()
    split(graph, functions, PREFIX)
    layers = find_layers(graph, PREFIX)
    move_up(graph, functions)
    layers = add_twins(layers, functions, thresholds)
    written = lower(graph, functions, thresholds)
    forms = {name: form_of(function, thresholds) for name, function in written.items()}
    exported = tuple(
        write_layer(layer, functions, forms, float_layers, saturation) for layer in layers
    )
    write_other_weights(graph)
    guard_float_layers(graph)
    _tidy(model, output_names, metadata or {})
    data = save(model, path)
    return ExportReport(
        path=str(path),
        num_bytes=sum(Path(p).stat().st_size for p in (path, data) if p is not None),
        layers=exported,
        changed_codes={
            name: changed_on_grid(written[name]) for name, form in forms.items() if form == 'grid'
        },
        warnings=_warnings(exported, forms, data),
        external_data=None if data is None else str(data),
    )


def _tidy(model: ir.Model, output_names: Sequence[str], metadata: Mapping[str, str]) -> None:
    """Remove what is left over, and torch's notes, which hold paths of this machine."""
    graph = model.graph
    graph.sort()
    for value, name in zip(graph.outputs, output_names, strict=True):
        value.name = name  # a quantizer at the end has brought its own
    if any(node.domain == TREES for node in graph):
        model.opset_imports[TREES] = 3
    ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.DeduplicateHashedInitializersPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.NameFixPass(),
    )(model)
    for value in [*graph.inputs, *graph.outputs, *(v for n in graph for v in n.outputs)]:
        value.metadata_props.clear()
    model.producer_name, model.producer_version = 'mmqnet', __version__
    model.metadata_props.clear()
    model.metadata_props.update(metadata)


def _warnings(
    layers: Sequence[ExportedLayer], forms: Mapping[str, str], data: Path | None
) -> tuple[str, ...]:
    found = []
    if data is not None:
        found.append(f'the weights are in external data: {str(data)!r} belongs to the file')
    saturating = [layer.name for layer in layers if layer.can_saturate]
    if saturating:
        found.append(
            f'{len(saturating)} layers ({saturating[0]}, ...) can saturate on x86 CPUs without '
            f'VNNI: 2 * |weight| * code exceeds 32767; set `{SATURATION_FLAG}` to 1 in ONNX '
            "Runtime there, which is slower, or export with `saturation='avoid'` (--saturation "
            'avoid), which rounds these weights to ±64'
        )
    rounded = [layer.name for layer in layers if layer.rounded]
    if rounded:
        found.append(
            f'the weights of {len(rounded)} layers ({rounded[0]}, ...) have been rounded to fewer '
            'bits, so that no CPU saturates: evaluate the file'
        )
    trees = [name for name, form in forms.items() if form == 'tree']
    if trees:
        found.append(
            f'{len(trees)} inputs ({trees[0]}, ...) have thresholds that no rounding gives, and '
            f'{MANY_STEPS} or more: exact, but slow, and not in OpenVINO; recipes whose names end '
            "in `u` are meant for integers, or take `thresholds='grid'`"
        )
    return tuple(found)

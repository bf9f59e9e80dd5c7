"""From a module to an ONNX graph in which each quantizer is one node ``mmqnet::HardQuantize``."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnxscript import values
from torch import Tensor, nn

from mmqnet.export.onnx import graph as graphs
from mmqnet.export.onnx.graph import DOMAIN, is_op

HARD_QUANTIZE = 'HardQuantize'
_INPUTS = ('x', 'levels', 'thresholds', 'alpha', 'beta')


def translate(
    module: nn.Module,
    example: Sequence[Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_batch: bool,
    opset: int,
) -> ir.Model:
    """Return the ONNX graph of a module, constants folded.

    Args:
        module: As :func:`mmqnet.export.freeze.frozen` returns it. Its ``translation_table``, if it
            has one, translates operators of its own.
        example: The inputs. With a dynamic batch, one picture is repeated: a batch of one would be
            taken for a constant.
        input_names: Their names.
        output_names: Names of the outputs.
        dynamic_batch: Whether the first dimension of inputs and outputs may vary.
        opset: Version of the ONNX operators.

    Raises:
        ValueError: If the module holds what ONNX cannot express; names the operation.
    """
    shapes = None
    if dynamic_batch:
        example = [x.repeat_interleave(2, 0) if x.shape[0] == 1 else x for x in example]
        batch = torch.export.Dim('batch', min=1)
        shapes = tuple({0: batch} for _ in example)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                tuple(example),
                dynamo=True,
                opset_version=opset,
                custom_translation_table={
                    torch.ops.mmqnet.hard_quantize.default: _translation(),
                    **getattr(module, 'translation_table', {}),
                },
                dynamic_shapes=shapes,
                input_names=list(input_names),
                output_names=list(output_names),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ValueError(_what_failed(module, error)) from error
    assert program is not None
    _make_contiguous(program.model)
    _remove_expansions(program.model)
    return program.model


def _make_contiguous(model: ir.Model) -> None:
    """Copy constants that are views of others, as folding leaves them: later passes refuse them."""
    for value in model.graph.initializers.values():
        array = None if value.const_value is None else value.const_value.numpy()
        if array is not None and not array.flags.c_contiguous:
            value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)


def _remove_expansions(model: ir.Model) -> None:
    """Remove ``Expand`` nodes that expand nothing.

    With one to a shape that holds the size of the batch, as MMDetection's decoding has them,
    OpenVINO 2026.4 gives all channels of the first quantized convolution the bias of channel 0.
    """
    for node in [node for node in model.graph if is_op(node, 'Expand')]:
        given, made = node.inputs[0], node.outputs[0]
        assert given is not None
        if _is_same(given.shape, made.shape) and not made.is_graph_output():
            graphs.replace(made, given)
            model.graph.remove(node, safe=True)


def _is_same(first: ir.Shape | None, second: ir.Shape | None) -> bool:
    """Whether two shapes are known, but for sizes by name, and equal."""
    return first is not None and not first.has_unknown_dim() and first == second


def _translation() -> Any:
    """Return the function that translates our operator to a node of our domain."""
    schema = onnx.defs.OpSchema
    operator = values.Op(
        values.Opset(DOMAIN, 1),
        HARD_QUANTIZE,
        schema(
            HARD_QUANTIZE,
            DOMAIN,
            1,
            inputs=[schema.FormalParameter(name, 'T') for name in _INPUTS],
            outputs=[schema.FormalParameter('y', 'T')],
            type_constraints=[('T', ['tensor(float)'], '')],
        ),
    )

    def hard_quantize(x: Any, levels: Any, thresholds: Any, alpha: Any, beta: Any) -> Any:
        return operator(x, levels, thresholds, alpha, beta)

    return hard_quantize


def _what_failed(module: nn.Module, error: BaseException) -> str:
    """Return one line: the innermost cause that says something."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    reason = lines[0] if lines else type(cause).__name__
    return f'{type(module).__name__} cannot be exported to ONNX: {reason}'


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's notes to its own developers; errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'torch.export', 'onnxscript')]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

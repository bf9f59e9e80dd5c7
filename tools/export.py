"""Export a trained model, float or quantized, for another runtime."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import mmqnet  # noqa: F401 -- repairs upstream faults before anything else is imported
except ModuleNotFoundError as error:
    import wrong_python  # beside this file

    wrong_python.stop(error)
from mmqnet.command_line import (
    add_settings,
    add_trust,
    choose_threads,
    positive_integer,
    safe_loading,
)
from mmqnet.failures import one_line_errors

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import nn

    from mmqnet.export.export_module import ExportModule


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument('--format', choices=list(WRITERS), default='onnx', help='default onnx')
    parser.add_argument(
        '--shape',
        type=positive_integer,
        nargs=2,
        metavar=('H', 'W'),
        help='height and width of the input; default: those of the test pipeline',
    )
    parser.add_argument(
        '--raw', action='store_true', help="write the head's outputs, before decoding and NMS"
    )
    parser.add_argument(
        '--no-preprocess', action='store_true', help='let the input be normalized by the user'
    )
    parser.add_argument(
        '--thresholds',
        choices=['exact', 'grid'],
        default='exact',
        help='how thresholds that no rounding gives are written (default exact)',
    )
    parser.add_argument(
        '--float-layers',
        choices=['small', 'fast'],
        default='small',
        help='what quantized layers that end in float hold: integers, with which OpenVINO '
        'computes, or floats, which ONNX Runtime computes with faster (default small)',
    )
    parser.add_argument(
        '--saturation',
        choices=['warn', 'avoid'],
        default='warn',
        help='what to do about weights with which sums saturate on x86 CPUs without VNNI: say so, '
        'or round them to fewer bits (default warn)',
    )
    parser.add_argument(
        '--verify',
        type=positive_integer,
        metavar='N',
        help='compare the codes of all quantized activations, the boxes or classes, and the '
        'metrics on N pictures of the test data',
    )
    add_settings(parser)
    add_trust(parser)
    parser.set_defaults(launcher='none', local_rank=0, work_dir=None)
    parsed = parser.parse_args(args)
    if Path(parsed.out).is_dir():
        parser.error(f'--out should be a file, but {parsed.out!r} is a folder')
    check_options(parser, parsed)
    return parsed


def load_model(config: Config, path: str) -> nn.Module:
    """Build the model of a config and load its checkpoint."""
    from mmqnet.models import build_model, check_calibrated, load_weights

    model = build_model(config, allow_float=True)
    load_weights(model, path)
    check_calibrated(model, path)
    return model


def wrap(model: nn.Module, config: Config, args: argparse.Namespace) -> ExportModule:
    """Return the model from pixels to results."""
    from mmqnet.export.input_format import default_shape

    if config.get('default_scope') == 'mmpretrain':
        from mmqnet.export.classification import export_module
    else:
        from mmqnet.export.detection import export_module
    shape = args.shape or default_shape(config)
    return export_module(
        model, config, shape=shape, preprocess=not args.no_preprocess, raw=args.raw
    )


def write_onnx(config: Config, args: argparse.Namespace) -> None:
    """Write an ONNX file, count its integer layers, and compare it with the model."""
    from mmqnet.export.packages import require

    require('onnx', 'onnxscript', 'onnxruntime')
    from mmqnet.export.onnx import count_integer_layers, export_onnx
    from mmqnet.export.summary import ExportSummary

    say = Progress(4 if args.verify else 3)
    say('Loading the model')
    model = load_model(config, args.checkpoint)
    module = wrap(model, config, args)
    say('Exporting')
    report = export_onnx(
        module,
        [module.example()],
        args.out,
        output_names=module.output_names,
        thresholds=args.thresholds,
        float_layers=args.float_layers,
        saturation=args.saturation,
        metadata=module.metadata,
    )
    say('Loading the file in the runtimes')
    layers = count_integer_layers(args.out)
    agreement, outputs, metrics = [], None, []
    if args.verify:
        from mmqnet.export.pictures import pictures
        from mmqnet.export.verify import compare_codes
        from mmqnet.export.verify_metrics import compare_metrics
        from mmqnet.export.verify_outputs import compare_outputs

        say(f'Comparing codes, results and metrics on {args.verify} pictures')
        inputs = list(pictures(config, module.file, args.verify))
        agreement = compare_codes(args.out, module, inputs)
        outputs = compare_outputs(args.out, module, inputs)
        metrics = compare_metrics(args.out, model, module.file, config, args.verify)
    summary = ExportSummary.of(report, layers, model, agreement, outputs, metrics)
    finish(summary.table(), summary.as_json(), args.out)


class Progress:
    """Print a line for each stage, with its number and the seconds so far."""

    def __init__(self, stages: int) -> None:
        self.stages = stages
        self.done = 0
        self.start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say what begins."""
        self.done += 1
        seconds = time.monotonic() - self.start
        print(f'[{self.done}/{self.stages}] {text} ({seconds:.0f} s)', flush=True)


def write_checkpoint(config: Config, args: argparse.Namespace) -> None:
    """Write a checkpoint whose weights take as many bits as their levels."""
    from mmqnet.export.packed import write_packed
    from mmqnet.models import read_checkpoint

    say = Progress(2)
    say('Loading the model')
    model = load_model(config, args.checkpoint)
    meta = read_checkpoint(args.checkpoint).get('meta', {})
    say('Packing')
    report = write_packed(model, config, args.out, meta.get('dataset_meta'))
    finish(report.table(), report.as_json(), args.out)


def write_qonnx(config: Config, args: argparse.Namespace) -> None:
    """Write backbone, neck and head in integers, for FPGAs."""
    from mmqnet.export.input_format import default_shape
    from mmqnet.export.packages import require

    require('qonnx', extra='qonnx')
    from mmqnet.export import qonnx

    say = Progress(2)
    say('Loading the model')
    model = load_model(config, args.checkpoint)
    say('Exporting')
    shape = (1, 3, *(args.shape or default_shape(config)))
    report = qonnx.write_qonnx(model, shape, args.out)
    finish(report.table(), report.as_json(), args.out)


def write_mobile(config: Config, args: argparse.Namespace) -> None:
    """Write int8 for LiteRT, or for ExecuTorch with XNNPACK, and compare it with the model."""
    from mmqnet.export.packages import require
    from mmqnet.export.qdq.export import compared, export_qdq

    if config.get('default_scope') != 'mmpretrain' and not args.raw:
        raise ValueError(f'--format {args.format} has no NMS: add --raw, and decode boxes outside')
    if args.format == 'litert':
        require('litert_torch', 'ai_edge_litert', extra='litert')
        from mmqnet.export.litert import LiteRT as Format
    else:
        require('executorch.exir', 'executorch.runtime', extra='executorch')
        from mmqnet.export.executorch import ExecuTorch as Format
    target, say = Format(), Progress(3 if args.verify else 2)
    say('Loading the model')
    module = wrap(load_model(config, args.checkpoint), config, args)
    say('Exporting')
    names, example = module.output_names, [module.example(1)]
    report, network = export_qdq(
        target, module, example, args.out, output_names=names, metadata=module.metadata
    )
    if args.verify:
        from mmqnet.export.pictures import pictures

        say(f'Comparing codes and results on {args.verify} pictures')
        inputs = list(pictures(config, module.file, args.verify))
        report = compared(report, target, network, module, names, inputs)
    finish(report.table(), report.as_json(), args.out)


def finish(table: str, report: str, out: str) -> None:
    """Print the closing table, and write it beside the file, as ``OUT.json``."""
    from mmqnet.atomic import write_text

    write_text(Path(f'{out}.json'), report)
    print(table)


WRITERS: dict[str, Callable[[Config, argparse.Namespace], None]] = dict(
    onnx=write_onnx,
    checkpoint=write_checkpoint,
    qonnx=write_qonnx,
    litert=write_mobile,
    executorch=write_mobile,
)
# What each format honours beside the common arguments.
OPTIONS = dict(
    onnx={
        *('shape', 'raw', 'no_preprocess', 'thresholds', 'float_layers', 'saturation', 'verify'),
    },
    checkpoint=set(),
    qonnx={'shape'},
    litert={'shape', 'raw', 'no_preprocess', 'verify'},
    executorch={'shape', 'raw', 'no_preprocess', 'verify'},
)
DEFAULTS = dict(thresholds='exact', float_layers='small', saturation='warn')


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that the format cannot honour."""
    for name in sorted(OPTIONS['onnx'] - OPTIONS[args.format]):
        default = DEFAULTS.get(name)
        if getattr(args, name) not in (default, None, False):
            option = f'--{name.replace("_", "-")}'
            parser.error(f'{option} has no effect with --format {args.format}: leave it out')


def main(args: list[str] | None = None) -> None:
    parsed = parse_args(args)
    choose_threads()
    from mmqnet.command_line import check_checkpoint, load_config

    config = load_config(parsed, ('test_dataloader',) if parsed.verify else ())
    check_checkpoint(parsed.checkpoint)
    with safe_loading(parsed.trust_checkpoint):
        WRITERS[parsed.format](config, parsed)


if __name__ == '__main__':
    with one_line_errors():
        main()

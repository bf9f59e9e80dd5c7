"""Pictures of a quantized model and of its training, and pages about it."""

from __future__ import annotations

import argparse
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
    import numpy as np
    from mmengine.config import Config
    from torch import nn

    from mmqnet import visualization as vis

Parser = argparse.ArgumentParser


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    config, checkpoint, layer, data, out = shared_arguments()
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    def add(name: str, text: str, *parents: Parser) -> Parser:
        return commands.add_parser(name, parents=parents, help=text, description=f'{text}.')

    of_layer = (config, checkpoint, layer, data, out)
    add('staircase', 'Hard function of a layer over the histogram of its values', *of_layer)
    curves = add('curves', 'Soft functions of a layer beside the hard one', *of_layer)
    curves.add_argument(
        '--temperatures', type=float, nargs='+', default=[1, 5, 15, 50], metavar='T'
    )
    of_model = (config, checkpoint, data, out)
    add('overview', 'Scales, levels in use and errors of all layers', *of_model)
    gap = add('gap', 'Metric with soft and hard functions over a training', out)
    gap.add_argument('log', help='scalars.json of a run, or its work dir')
    gap.add_argument('--metric', help='default: the first one in the log')
    add_detections(add('detections', 'Detections of several models beside each other', out))
    report = add('report', 'One HTML page about a checkpoint', *of_model)
    report.add_argument('--log', help="log or work dir of the training (default: checkpoint's)")
    report.add_argument('--sensitivity', help='file of tools/sensitivity.py, for a column')
    add('layers', 'Print what a config quantizes, layer by layer', config)
    parsed = parser.parse_args(args)
    if parsed.command == 'detections':
        titles = [title for title, _, _ in parsed.model]
        if len(set(titles)) < len(titles):
            parser.error(f'each --model should have a TITLE of its own, but got {titles}')
    return parsed


def shared_arguments() -> tuple[Parser, ...]:
    """Return parsers of what several commands take: config, checkpoint, layer, data and out."""
    config, checkpoint, layer, data, out = (Parser(add_help=False) for _ in range(5))
    config.add_argument('config', help='config file of the quantized model')
    add_settings(config)
    config.set_defaults(launcher='none', local_rank=0, work_dir=None, trust_checkpoint=False)
    add_trust(checkpoint)
    checkpoint.add_argument('checkpoint', help='checkpoint of the quantized model')
    checkpoint.add_argument(
        '--calibrate',
        type=positive_integer,
        nargs='?',
        const=64,
        metavar='N',
        help='take a checkpoint of the float model and initialize the quantizers as a training '
        'would: from the weights and, for activations, N training images (default 64)',
    )
    layer.add_argument('layer', help='name of a layer, or of a residual block for its input')
    data.add_argument(
        '--data',
        type=positive_integer,
        metavar='N',
        help='draw activations, collected on N validation images',
    )
    out.add_argument(
        '--out', required=True, help='file to write: .png, .svg, .pdf, .. or .html for a report'
    )
    return config, checkpoint, layer, data, out


def add_detections(parser: Parser) -> None:
    add_trust(parser)
    parser.add_argument(
        '--model',
        nargs=3,
        action='append',
        required=True,
        metavar=('TITLE', 'CONFIG', 'CHECKPOINT'),
        help='a detector, float or quantized, or an exported file (.onnx) in ONNX Runtime, for '
        'one row; may be given several times',
    )
    parser.add_argument(
        '--images', type=Path, nargs='+', required=True, metavar='PATH', help='pictures, or folders'
    )
    parser.add_argument(
        '--num-images',
        type=positive_integer,
        default=4,
        metavar='N',
        help='the first N (default 4)',
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.5, help='lowest score of a drawn box (default 0.5)'
    )


def load_model(args: argparse.Namespace, config: Config) -> nn.Module:
    """Return the model with its weights, calibrated."""
    from mmqnet import visualization as vis
    from mmqnet.calibration import calibrate, run_model
    from mmqnet.models import build_model, check_calibrated, load_weights

    model = build_model(config)
    if 'layer' in args:  # report a wrong name before the long work
        vis.check_layer(model, args.layer, 'input' if args.data else 'weight')
    with safe_loading(args.trust_checkpoint):
        load_weights(model, args.checkpoint)
    if args.calibrate:
        images = vis.load_images(config, 'train_dataloader', args.calibrate)
        done = calibrate(model, images, lambda batch: run_model(model, batch))
        print(f'initialised {len(done)} quantizers')
    check_calibrated(model, args.checkpoint)
    return model


def draw_model(args: argparse.Namespace) -> vis.Figure:
    from mmqnet import visualization as vis
    from mmqnet.calibration import run_model
    from mmqnet.command_line import load_config

    config = load_config(args, ('val_dataloader',) if args.data else ())
    model = load_model(args, config)
    images = vis.load_images(config, 'val_dataloader', args.data or 0)

    def collect(names: list[str]) -> dict[str, vis.LayerValues]:
        return vis.collect_inputs(model, names, images, lambda batch: run_model(model, batch))

    if args.command == 'overview':
        return vis.draw_overview(model, collect(vis.input_names(model)) if args.data else None)
    name = args.layer
    source = collect([name])[name] if args.data else vis.weight_values(model, name)
    if args.command == 'curves':
        return vis.draw_curves(source, args.temperatures)
    return vis.draw_staircase(source)


def detect(config: str, checkpoint: str, images: list[np.ndarray]) -> tuple[list, tuple[str, ...]]:
    """Return what a checkpoint or an exported file detects on BGR images, and its classes.

    There are no classes if the checkpoint does not say which.
    """
    if checkpoint.endswith('.onnx'):
        from mmqnet.export.runtime import ExportedDetector

        exported = ExportedDetector(checkpoint)
        return [exported(image) for image in images], exported.metadata.classes
    from mmdet.apis import inference_detector, init_detector
    from mmengine.config import Config

    from mmqnet.models import check_calibrated, load_weights, read_checkpoint

    loaded = Config.fromfile(config)
    if loaded.get('default_scope') != 'mmdet':
        raise ValueError(f'the model of {config!r} is no detector of MMDetection')
    model = init_detector(loaded, checkpoint, device='cpu')
    load_weights(model, checkpoint, exact=True)  # MMDetection only warns of those of another model
    check_calibrated(model, checkpoint)
    says = read_checkpoint(checkpoint).get('meta', {}).keys() & {'dataset_meta', 'CLASSES'}
    classes = tuple(model.dataset_meta['classes']) if says else ()
    return inference_detector(model, images), classes


def draw_detections(args: argparse.Namespace) -> vis.Figure:
    """Detect the objects of some pictures with each model, and draw them.

    Raises:
        FileNotFoundError: If a config, a checkpoint or the pictures do not exist.
        ValueError: If a file is no picture, or a model no detector or one of other classes.
    """
    import mmcv
    from mmdet.evaluation import get_classes

    from mmqnet import visualization as vis
    from mmqnet.command_line import check_checkpoint

    for _, _, checkpoint in args.model:
        check_checkpoint(checkpoint)
    images = vis.read_pictures(args.images, args.num_images)
    predictions, classes = {}, ()
    for title, config, checkpoint in args.model:
        with safe_loading(args.trust_checkpoint):
            predictions[title], found = detect(config, checkpoint, images)
        if found and classes and found != classes:
            raise ValueError(
                f'all models should have the same classes, but {title!r} has '
                f'{", ".join(found[:4])}, .. and those before have {", ".join(classes[:4])}, ..'
            )
        classes = found or classes
    classes = classes or get_classes('coco')  # as MMDetection assumes
    rgb = [mmcv.bgr2rgb(image) for image in images]
    return vis.draw_side_by_side(rgb, predictions, classes, args.score_thr)


def write_report(args: argparse.Namespace) -> None:
    """Write the page about a checkpoint."""
    from mmqnet import atomic
    from mmqnet import visualization as vis
    from mmqnet.command_line import load_config
    from mmqnet.sensitivity import load_sensitivities
    from mmqnet.visualization.report import check_page_path, make_report

    check_page_path(args.out)
    config = load_config(args, ('val_dataloader',) if args.data else ())
    model = load_model(args, config)
    batches = vis.load_images(config, 'val_dataloader', args.data or 0)
    errors = load_sensitivities(args.sensitivity).errors if args.sensitivity else None
    with safe_loading(args.trust_checkpoint):
        page = make_report(model, config, args.checkpoint, batches, args.log, errors)
    atomic.write_text(args.out, page)


def print_layers(args: argparse.Namespace) -> None:
    from mmqnet.command_line import load_config
    from mmqnet.models import build_model

    print(build_model(load_config(args, ())).quantization_report.table())


def write_picture(args: argparse.Namespace) -> None:
    from mmqnet import visualization as vis

    vis.check_picture_path(args.out)
    if args.command == 'gap':
        figure = vis.draw_gap(vis.read_gap(args.log, args.metric))
    else:
        figure = draw_detections(args) if args.command == 'detections' else draw_model(args)
    vis.save_figure(figure, args.out)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    choose_threads()
    from mmengine.logging import MMLogger

    MMLogger.get_instance('analyze', log_level='WARNING')  # the report of a model is not news here
    if args.command == 'layers':
        print_layers(args)
        return
    write = write_report if args.command == 'report' else write_picture
    write(args)
    print(f'written to {args.out}')


if __name__ == '__main__':
    with one_line_errors():
        main()

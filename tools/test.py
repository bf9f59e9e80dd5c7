"""Test a model, float or quantized; the arguments are those of MMDetection's tool."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import mmqnet  # noqa: F401 -- repairs upstream faults before anything else is imported
except ModuleNotFoundError as error:
    import wrong_python  # beside this file

    wrong_python.stop(error)
from mmqnet.command_line import add_arguments, choose_threads, safe_loading
from mmqnet.export.backends import BACKENDS
from mmqnet.failures import one_line_errors

if TYPE_CHECKING:
    from mmengine.config import Config

# By the ending of an exported file.
RUNTIMES = {'.onnx': 'onnxruntime or openvino', '.tflite': 'litert', '.pte': 'executorch'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, or an exported one with --backend')
    parser.add_argument(
        '--backend',
        choices=BACKENDS,
        help='run an exported file (.onnx, .tflite, .pte) in a runtime instead of a checkpoint '
        'in torch',
    )
    parser.add_argument('--out', help='file (.pkl) for the predictions')
    parser.add_argument('--show', action='store_true', help='show the predictions')
    parser.add_argument('--show-dir', help='folder, in the work dir, for pictures of predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show each picture')
    parser.add_argument('--tta', action='store_true', help='augment the test images')
    parser.add_argument(
        '--soft', action='store_true', help='evaluate the soft functions instead of the hard ones'
    )
    add_arguments(parser)
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out should end in .pkl or .pickle, but got {args.out!r}')
    runtimes = RUNTIMES.get(Path(args.checkpoint).suffix)
    if runtimes and not args.backend:
        parser.error(f'{args.checkpoint!r} needs --backend {runtimes}')
    if args.backend and (args.tta or args.soft):
        parser.error(f'--backend {args.backend} takes neither --tta nor --soft')
    return args


def show_predictions(config: Config, args: argparse.Namespace) -> None:
    """Turn on the visualization hook, whose keys differ between the two libraries."""
    hook = (config.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise ValueError('--show and --show-dir need `default_hooks.visualization` in the config')
    hook.update(show=args.show, wait_time=args.wait_time)
    if config.get('default_scope') == 'mmpretrain':
        # of each picture, not of every 5000th
        folder = args.show_dir and str(Path(config.work_dir, args.show_dir))
        hook.update(enable=True, interval=1, out_dir=folder)
    else:
        hook.update(draw=True, test_out_dir=args.show_dir)


def augment_tests(config: Config) -> None:
    """Wrap the model in the config's test-time augmentation."""
    for key in ('tta_model', 'tta_pipeline'):
        if key not in config:
            raise ValueError(f'--tta needs `{key}` in the config')
    from mmengine.config import ConfigDict

    config.model = ConfigDict(**config.tta_model, module=config.model)
    config.test_dataloader.dataset.pipeline = config.tta_pipeline


def main() -> None:
    args = parse_args()
    choose_threads(args.launcher)
    from mmengine.evaluator import DumpResults

    from mmqnet.command_line import build_runner, check_checkpoint, load_config
    from mmqnet.export.runtime import evaluate_exported
    from mmqnet.quantizers import soft_evaluation

    config = load_config(args, ('test_dataloader',))
    check_checkpoint(args.checkpoint)
    config.load_from = args.checkpoint
    if args.backend:
        evaluate_exported(config, args.checkpoint, args.backend)
    if args.show or args.show_dir:
        show_predictions(config, args)
    if args.tta:
        augment_tests(config)
    runner = build_runner(config)
    if args.out:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    soft = soft_evaluation(runner.model) if args.soft else contextlib.nullcontext()
    with safe_loading(args.trust_checkpoint), soft:
        runner.test()


if __name__ == '__main__':
    with one_line_errors():
        main()
        from mmqnet.command_line import leave_processes

        leave_processes()

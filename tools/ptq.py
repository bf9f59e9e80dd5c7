"""Quantize a trained float model without training: calibrate it, save it and test it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import mmqnet  # noqa: F401 -- repairs upstream faults before anything else is imported
except ModuleNotFoundError as error:
    import wrong_python  # beside this file

    wrong_python.stop(error)
from mmqnet.command_line import add_arguments, choose_threads, positive_integer, safe_loading
from mmqnet.failures import one_line_errors

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of the quantized model')
    parser.add_argument('checkpoint', help='checkpoint file of the float model')
    parser.add_argument(
        '--out', help='checkpoint file (.pth) to write; default: ptq.pth in the work dir'
    )
    parser.add_argument(
        '--num-samples',
        type=positive_integer,
        default=1000,
        metavar='N',
        help='training samples that calibrate the activations (default 1000)',
    )
    parser.add_argument(
        '--match-outputs',
        action=argparse.BooleanOptionalAction,
        help='scale the weights of layers with a bias, and move the bias, so that their outputs '
        'are as near as possible to those in float; for models without batch normalization '
        "(default: what the config's CalibrationHook says)",
    )
    parser.add_argument(
        '--reestimate-bn',
        type=positive_integer,
        nargs='?',
        const=1000,
        metavar='N',
        help='recompute the statistics of batch normalization with hard quantization functions on '
        'N training samples (default 1000)',
    )
    add_arguments(parser)
    args = parser.parse_args()
    if args.out and not args.out.endswith('.pth'):
        parser.error(f'--out should end in .pth, but got {args.out!r}')
    return args


def check_config(config: Config, path: str) -> None:
    """Check that a config has what calibration and test need."""
    for key in ('train_dataloader', 'test_dataloader', 'test_cfg', 'test_evaluator'):
        if config.get(key) is None:
            raise ValueError(
                f'`{key}` should be in {path!r}: `train_dataloader` gives the samples that '
                'calibrate the model, the others test it'
            )


def output_path(args: argparse.Namespace, config: Config) -> str:
    """Return the path of the new checkpoint, which must not replace the float one."""
    path = Path(args.out or Path(config.work_dir, 'ptq.pth'))
    if path.exists() and path.samefile(args.checkpoint):
        raise ValueError(f'--out should be another file than the float checkpoint {str(path)!r}')
    return str(path)


def save(runner: Runner, dataset: Any, path: str) -> None:
    """Write the checkpoint, with the names of the classes, atomically."""
    import mmengine
    from mmengine.runner import save_checkpoint, weights_to_cpu

    from mmqnet.engine.atomic_backend import ATOMIC
    from mmqnet.engine.unwrap import unwrap

    meta = dict(cfg=runner.cfg.pretty_text, mmengine_version=mmengine.__version__)
    if hasattr(dataset, 'metainfo'):
        meta['dataset_meta'] = dataset.metainfo
    checkpoint = dict(meta=meta, state_dict=weights_to_cpu(unwrap(runner.model).state_dict()))
    save_checkpoint(checkpoint, path, backend_args=dict(backend=ATOMIC))
    runner.logger.info(f'Written to {path}')


def main() -> None:
    args = parse_args()
    choose_threads(args.launcher)
    from mmengine.dist import is_main_process

    from mmqnet.calibration import (
        calibrate_on_samples,
        learning_batch_norms,
        match_on_samples,
        matchable_layers,
        reestimate_on_samples,
    )
    from mmqnet.command_line import build_runner, check_checkpoint, load_config, load_float
    from mmqnet.engine.unwrap import unwrap

    config = load_config(args, ('train_dataloader', 'test_dataloader'))
    check_config(config, args.config)
    check_checkpoint(args.checkpoint)
    out = output_path(args, config)
    hook = config.get('default_hooks', {}).get('calibration') or {}
    if args.match_outputs is None:
        args.match_outputs = hook.get('match_outputs', False)
    seed = hook.get('seed', 0)
    config.update(load_from=None, resume=False)
    runner = build_runner(config)
    model = unwrap(runner.model)
    if args.match_outputs:
        matchable_layers(model)
    if args.reestimate_bn:
        learning_batch_norms(model)
    with safe_loading(args.trust_checkpoint):
        load_float(model, args.config, args.checkpoint)
    train = runner.build_dataloader(config.train_dataloader, seed=runner.seed)
    done = calibrate_on_samples(model, train, args.num_samples, seed)
    runner.logger.info(f'Calibrated {len(done)} quantizers')
    if args.match_outputs:
        match_on_samples(model, train, done, args.num_samples, seed)
    if args.reestimate_bn:
        reestimate_on_samples(model, train, args.reestimate_bn)
    if is_main_process():
        save(runner, train.dataset, out)
    runner.test()


if __name__ == '__main__':
    with one_line_errors():
        main()
        from mmqnet.command_line import leave_processes

        leave_processes()

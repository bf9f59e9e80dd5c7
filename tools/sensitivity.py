"""Measure what each layer of a trained float model costs at each choice of bits."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
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
    from collections.abc import Callable

    from mmengine.config import Config
    from mmengine.runner import Runner
    from torch import nn

    from mmqnet import sensitivity

_CHOICES = ('w2-a4', 'w3-a4', 'w4-a4', 'w4-a8', 'w8-a8')


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of the quantized model')
    parser.add_argument('checkpoint', help='checkpoint file of the float model')
    parser.add_argument(
        '--choices',
        nargs='+',
        default=_CHOICES,
        metavar='wK-aK',
        help='bits of weights and activations, 32 for float (default %(default)s)',
    )
    parser.add_argument(
        '--direct',
        nargs='?',
        const='loss',
        metavar='METRIC',
        help='evaluate the model with one quantizer at a time: its loss on training samples, or a '
        'metric of the validation; default: the fast estimate, from gradients of the loss',
    )
    parser.add_argument(
        '--num-samples',
        type=positive_integer,
        metavar='N',
        help='samples to measure on (default 32, with --direct 256)',
    )
    parser.add_argument(
        '--calibration-samples',
        type=positive_integer,
        default=64,
        metavar='N',
        help='training samples that the quantizers of activations are fitted to (default 64)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the choice of samples (default 0)')
    parser.add_argument(
        '--out',
        type=Path,
        help='file (.json) to write, with a picture (.png) beside it, and to go on from if it is '
        'there; default: sensitivity_fast.json or sensitivity_direct.json in the work dir',
    )
    parser.add_argument(
        '--compare', type=Path, metavar='JSON', help='print the rank correlation with another file'
    )
    parser.add_argument('--work-dir', help='folder of logs and results')
    add_settings(parser)
    add_trust(parser)
    parser.set_defaults(launcher='none', local_rank=0)
    parsed = parser.parse_args(args)
    if parsed.out and parsed.out.suffix != '.json':
        parser.error(f'--out should end in .json, but got {str(parsed.out)!r}')
    return parsed


def read_config(args: argparse.Namespace) -> Config:
    """Read the config, and check that it has what is needed."""
    from mmqnet.command_line import load_config

    keys = ['train_dataloader']
    if args.direct not in (None, 'loss'):
        keys += ['val_dataloader', 'val_cfg', 'val_evaluator']
    config = load_config(args, ('train_dataloader', 'val_dataloader'))
    for key in keys:
        if config.get(key) is None:
            raise ValueError(f'`{key}` should be in {args.config!r}, to measure on its samples')
    config.update(load_from=None, resume=False, log_level='WARNING')
    return config


def evaluation(
    args: argparse.Namespace,
    runner: Runner,
    model: nn.Module,
    loss: sensitivity.TrainingLoss,
    record: sensitivity.Sensitivities,
) -> Callable[[], float]:
    """Return what evaluates the model as it is; ``record`` gets its measure in float first."""
    from mmqnet.checks import did_you_mean
    from mmqnet.engine.partial_validation import PartialValidation

    if args.direct == 'loss':
        return loss.mean
    validate = PartialValidation(runner, args.num_samples)

    def metric() -> float:
        with contextlib.redirect_stdout(io.StringIO()):  # COCO's tables
            metrics = validate(model)
        if args.direct not in metrics:
            if validate.has_coco and record.reference is not None:
                return min(0.0, record.reference)  # -1 where there are no objects of a size
            if validate.has_coco and not metrics:
                raise ValueError(
                    f'the float model detects nothing on the first {validate.num_samples} samples '
                    f'of the validation, so there is no {args.direct!r} to fall: check the '
                    'checkpoint, or take more with --num-samples'
                )
            hint = did_you_mean(args.direct, metrics) or f' It gives {sorted(metrics)}.'
            raise ValueError(f'the validation gives no metric {args.direct!r}.{hint}')
        return metrics[args.direct]

    return metric


def measure(args: argparse.Namespace, config: Config, out: Path) -> sensitivity.Sensitivities:
    """Measure what is left to be measured, and write it down as it comes."""
    from mmqnet import sensitivity
    from mmqnet.command_line import build_runner, load_float
    from mmqnet.engine.unwrap import unwrap

    runner = build_runner(config)
    model = unwrap(runner.model)
    with safe_loading(args.trust_checkpoint):
        load_float(model, args.config, args.checkpoint)
    train = runner.build_dataloader(config.train_dataloader, seed=args.seed)
    data = train if args.direct in (None, 'loss') else runner.val_dataloader
    loaders = filter(None, map(config.get, ('train_dataloader', 'val_dataloader')))
    settings = dict(
        method='direct' if args.direct else 'fast',
        measure=args.direct or 'loss',
        num_samples=min(args.num_samples, len(data.dataset)),
        calibration_samples=args.calibration_samples,
        seed=args.seed,
        data=[sensitivity.as_text(loader.dataset.to_dict()) for loader in loaders],
    )
    choices = sensitivity.parse_choices(args.choices)
    quantization = config.model.quantization.to_dict()
    record, alternatives = sensitivity.prepare(model, quantization, choices, train, settings)
    if out.exists():
        found = sensitivity.load_sensitivities(out)
        sensitivity.check_same(found, record, out)
        found.layers = record.layers  # the same, but files used to have another order
        record = found
    loss = sensitivity.TrainingLoss(model, train, args.num_samples, args.seed)
    with sensitivity.quantizers_off(model):
        if args.direct:
            cost = evaluation(args, runner, model, loss, record)
            sensitivity.measure_direct(record, model, alternatives, cost, out)
        else:
            sensitivity.measure_fast(record, model, alternatives, loss, out)
    return record


def run(args: argparse.Namespace) -> None:
    from mmqnet import sensitivity
    from mmqnet import visualization as vis
    from mmqnet.command_line import check_checkpoint

    sensitivity.parse_choices(args.choices)  # report mistakes before the long work
    other = sensitivity.load_sensitivities(args.compare) if args.compare else None
    config = read_config(args)
    check_checkpoint(args.checkpoint)
    args.num_samples = args.num_samples or (256 if args.direct else 32)
    name = f'sensitivity_{"direct" if args.direct else "fast"}.json'
    out = args.out or Path(config.work_dir, name)
    record = measure(args, config, out)
    vis.save_figure(vis.draw_sensitivities(record), out.with_suffix('.png'))
    print(record.table())
    if other:
        ranks = record.rank_correlation(other)
        print(f'rank correlation with {args.compare}:')
        print('  '.join(f'{name} {value:.2f}' for name, value in ranks.items()))
    print(f'written to {out} and {out.with_suffix(".png")}')


def main(args: list[str] | None = None) -> None:
    parsed = parse_args(args)
    choose_threads()
    try:
        run(parsed)
    except KeyboardInterrupt:
        sys.exit('\nstopped; the same command goes on from what has been written')


if __name__ == '__main__':
    with one_line_errors():
        main()

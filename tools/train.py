"""Train a model, float or quantized; the arguments are those of MMDetection's tool."""

import argparse

try:
    import mmqnet  # noqa: F401 -- repairs upstream faults before anything else is imported
except ModuleNotFoundError as error:
    import wrong_python  # beside this file

    wrong_python.stop(error)
from mmqnet.command_line import add_arguments, choose_threads, safe_loading
from mmqnet.failures import one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='checkpoint to resume from; without a value the latest one in the work dir',
    )
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    threads = choose_threads(args.launcher)
    from mmqnet.command_line import (
        build_runner,
        check_checkpoint,
        check_hooks,
        load_config,
        log_hints,
        resume,
        train,
        use_mixed_precision,
    )

    config = load_config(args, ('train_dataloader', 'val_dataloader'))
    if args.amp:
        use_mixed_precision(config)
    if args.auto_scale_lr:
        if 'base_batch_size' not in (config.get('auto_scale_lr') or {}):
            raise ValueError('--auto-scale-lr needs `auto_scale_lr.base_batch_size` in the config')
        config.auto_scale_lr.enable = True
    with safe_loading(args.trust_checkpoint):
        if args.resume is not None:
            resume(config, args.resume)
        if config.get('load_from'):
            check_checkpoint(config.load_from)
        check_hooks(config)
        runner = build_runner(config)
        log_hints(runner, threads)
        train(runner)


if __name__ == '__main__':
    with one_line_errors():
        main()
        from mmqnet.command_line import leave_processes

        leave_processes()

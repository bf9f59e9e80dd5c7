"""Reruns the ablations of the paper on the demo: tables 5 to 7, and figure 4.

    python tools/benchmarks/ablation.py [--rows w2-a32 w2-a32-shared] [--seeds 0 1 2]

trains the demo's detector with the paper's recipe, each time with one thing changed: thresholds by
k-means or linear, a function for each layer or one for all, a trained float model or random
weights, a temperature that grows or one that stays. What is finished is kept in ``ablation.json``,
beside tables and a picture; after an interruption the same command continues.
"""

import argparse
import sys

from ablation_plan import ROWS, SPLITS, AblationPlan
from ablation_report import AblationResults, draw, tables
from comparison import Report, add_arguments, compare, learning_rate, parse
from comparison_configs import float_config
from comparison_results import describe


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS))
    parser.add_argument(
        '--rate',
        type=learning_rate,
        default=2e-3,
        help='the highest, from the float checkpoint (2e-3)',
    )
    add_arguments(parser, out_dir='work_dirs/ablation')
    return parse(parser)


def main() -> None:
    args = parse_args()
    scratch = dict(
        rate=float_config().optim_wrapper.optimizer.lr, epochs=float_config().train_cfg.max_epochs
    )
    try:
        conditions = dict(**describe(args, SPLITS), rate=args.rate, float_training=scratch)
        results = AblationResults(args.out_dir / 'ablation.json', conditions)
    except (OSError, ValueError) as error:
        sys.exit(f'ablation.py: error: {error}')
    plan = AblationPlan(args.rows, args.seeds, args.rate)
    compare(args, plan, results, Report(tables, draw))


if __name__ == '__main__':
    main()

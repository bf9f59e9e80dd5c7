"""Compares methods of quantization on the demo: trainings from one float checkpoint.

    python tools/benchmarks/methods.py [--methods u LSQ] [--bits 2/2 1/2] [--seeds 0 1 2]

trains the demo's detector with each method at each number of bits. The first seed is trained at
three learning rates, and at further ones while the best is the lowest or the highest; the other
seeds at the one that is best on the validation split. Methods are compared on the test split
(``digits.py --num-test 2000``). What is finished is kept in ``methods.json``, beside a table and a
picture; after an interruption the same command continues. Trainings of a recipe that has changed
since stay in the file, and are made anew.
"""

import argparse
import sys

from comparison import Report, add_arguments, compare, learning_rate, parse
from comparison_results import describe
from methods_plan import EPOCHS, FLOAT, METHODS, RATES, SPLITS, MethodsPlan, cells_of
from methods_report import MethodResults, draw, table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [FLOAT, *METHODS]
    parser.add_argument('--methods', nargs='+', choices=names, default=names)
    parser.add_argument(
        '--rates',
        nargs='+',
        type=learning_rate,
        help=f'of the first seed (by the epochs: {RATES}, and beyond while the best is at an end)',
    )
    parser.add_argument('--bits', nargs='+', choices=EPOCHS, default=list(EPOCHS))
    add_arguments(parser, out_dir='work_dirs/methods')
    args = parse(parser)
    if not cells_of(args.methods, args.bits):
        parser.error(f'{", ".join(args.methods)} should have a recipe for {", ".join(args.bits)}')
    return args


def main() -> None:
    args = parse_args()
    try:
        conditions = describe(args, SPLITS)
        path = args.out_dir / 'methods.json'
        results = MethodResults(path, conditions, args.seeds[0], args.rates)
    except (OSError, ValueError) as error:
        sys.exit(f'methods.py: error: {error}')
    plan = MethodsPlan(cells_of(args.methods, args.bits), args.seeds, args.rates)
    compare(args, plan, results, Report(table, draw))


if __name__ == '__main__':
    main()

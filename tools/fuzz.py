"""Give damaged and odd inputs to everything that reads what users give.

Every case should end in success or in one line that names the cause; the command fails if one does
not. A case is a function of the seed and its number. Started again with the same --out, it goes on.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # each case is a fork, which threads do not survive

import mmqnet  # noqa: F401 -- repairs upstream faults before anything else is imported


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--share', type=float, default=1.0, help='of all cases (default 1)')
    parser.add_argument('--seed', type=int, default=0, help='default 0')
    parser.add_argument(
        '--groups', nargs='+', help='configs, checkpoints, annotations, exported (default all)'
    )
    parser.add_argument('--out', type=Path, help='record (.json) to write, or to go on from')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from fuzzing.campaign import GROUPS, run, table

    numbers = {
        name: max(1, round(args.share * number))
        for name, number in GROUPS.items()
        if args.groups is None or name in args.groups
    }
    groups = run(numbers, args.seed, args.out)
    print(table(groups))
    faults = [(name, *fault) for name, group in groups.items() for fault in group.faults]
    for name, number, kind, text in faults[:20]:
        print(f'\n{name} {number}: {kind}\n{text}')
    raise SystemExit(bool(faults))


if __name__ == '__main__':
    main()

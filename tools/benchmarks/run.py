"""Measures mmqnet against float models and against its peers.

    python tools/benchmarks/run.py [--only operator train evaluate distill memory kmeans calibrate
                                            deploy]

prints a table of ratios for each part and writes all of it to ``work_dirs/benchmarks/results.json``
and ``.png``. Rows that have been measured are kept: after an
interruption the same command continues.
"""

import argparse
import functools
import hashlib
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calibrating
import clustering
import deploying
import distilling
import memory
import operators
import peers
import torch
import training
from measuring import CLOCKS, Cases, Settings
from picture import draw
from records import Records, table

import mmqnet
from mmqnet import atomic
from mmqnet.command_line import positive_integer
from mmqnet.ops.kernel import kernel_unavailable

PARTS: dict[str, Callable[[Settings], Cases]] = {
    'operator': operators.cases,
    'train': functools.partial(training.cases, what='train'),
    'evaluate': functools.partial(training.cases, what='evaluate'),
    'distill': distilling.cases,
    'memory': memory.cases,
    'kmeans': clustering.cases,
    'calibrate': calibrating.cases,
    'deploy': deploying.cases,
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=PARTS, default=list(PARTS), help='parts')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument('--fresh', action='store_true', help='measure again what is kept')
    parser.add_argument('--threads', type=positive_integer, default=torch.get_num_threads())
    parser.add_argument(
        '--clock', choices=CLOCKS, default='wall', help='cpu: for one thread on a busy machine'
    )
    parser.add_argument('--quick', action='store_true', help='tiny sizes, to try the tool')
    return parser.parse_args()


def describe(settings: Settings) -> dict[str, Any]:
    """Return what times depend on: rows are kept as long as all of it stays the same."""
    reason = kernel_unavailable()
    return dict(
        mmqnet=mmqnet.__version__,
        torch=torch.__version__,
        kernel=f'none: {reason}' if reason else describe_kernel(),
        **peers.versions(),
        machine=platform.node(),
        processor=processor(),
        threads=settings.threads,
        clock=settings.clock,
        quick=settings.quick,
    )


def describe_kernel() -> str:
    """Return the kernel's instruction set and a hash of its binary."""
    from mmqnet.ops import _C  # type: ignore[attr-defined]

    build = hashlib.sha256(Path(_C.__file__).read_bytes()).hexdigest()[:12]
    return f'{torch.ops.mmqnet.instruction_set()}, build {build}'


def processor() -> str:
    """Return the processor's name, where the system provides it."""
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.machine())


def measure(part: str, settings: Settings, records: Records) -> None:
    """Measure the missing cases of a part, and print its table."""
    cases = PARTS[part](settings)
    for i, (case, function) in enumerate(cases.items(), 1):
        kept = case in records.rows.get(part, {})
        print(f'{part} {i}/{len(cases)}: {case}', end=' ', flush=True)
        start = time.perf_counter()
        if not kept:
            records.add(part, case, function())
        print('kept' if kept else f'{time.perf_counter() - start:.0f} s', flush=True)
    print(f'\n{part}\n{table(records.rows.get(part, {}))}\n', flush=True)


def main() -> None:
    args = parse_args()
    settings = Settings(args.threads, args.clock, args.quick)
    torch.set_num_threads(settings.threads)
    conditions = describe(settings)
    print(', '.join(f'{key} {value}' for key, value in conditions.items()))
    try:
        records = Records(args.out_dir / 'results.json', conditions)
    except ValueError as error:
        sys.exit(f'run.py: error: {error}')
    for part in args.only:
        if args.fresh:
            records.drop(part)
        measure(part, settings, records)
    for name, reason in records.left_out().items():
        print(f'left out: {name} ({reason})')
    if not records.rows:
        print('nothing can be measured here')
        return
    picture = draw(records.rows)
    if picture is not None:
        atomic.write_bytes(args.out_dir / 'results.png', picture)
    print(f'written: {args.out_dir}/results.json' + (' and .png' if picture else ''))


if __name__ == '__main__':
    main()

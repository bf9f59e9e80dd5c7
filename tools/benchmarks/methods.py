"""Compares methods of quantization on the demo: trainings from one float checkpoint.

    python tools/benchmarks/methods.py [--methods u LSQ] [--bits 2/2 1/2] [--seeds 0 1 2]

trains the demo's detector with each method at each number of bits. The first seed is trained at
three learning rates, the other ones at the best of these. What is finished is kept in
``methods.json``, beside a table and a picture; after an interruption the same command continues.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from comparison import (
    EPOCHS,
    FLOAT,
    METHODS,
    ROOT,
    Run,
    cells_of,
    config_text,
    missing_runs,
    number_of_runs,
)
from comparison_report import draw, table
from comparison_results import Results, describe

from mmqnet import atomic
from mmqnet.command_line import positive_integer


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [FLOAT, *METHODS]
    parser.add_argument('--methods', nargs='+', choices=names, default=names)
    parser.add_argument('--bits', nargs='+', choices=EPOCHS, default=list(EPOCHS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument(
        '--checkpoint',
        type=Path,
        default=ROOT / 'work_dirs' / 'ssd_r18_digits' / 'epoch_5.pth',
        help="the demo's float checkpoint",
    )
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/methods'))
    parser.add_argument('--jobs', type=positive_integer, default=1, help='trainings at a time')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='settings for all trainings, key=value'
    )
    args = parser.parse_args()
    if not args.checkpoint.is_file():
        parser.error(f'--checkpoint {args.checkpoint} does not exist; `make demo` trains it')
    return args


def train(run: Run, args: argparse.Namespace) -> tuple[float, float]:
    """Train and evaluate as a user would, and return the hard mAP and the minutes it took.

    Raises:
        RuntimeError: If a command fails; the log is named.
    """
    folder = (args.out_dir / 'runs' / run.folder).resolve()
    config = folder / 'config.py'
    atomic.write_text(config, config_text(run, args.checkpoint.resolve()))
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    start = time.monotonic()
    command = ['train.py', str(config), '--work-dir', str(folder), '--resume', *options]
    _call(command, folder)
    last = folder / f'epoch_{run.cell.epochs}.pth'
    test = folder / 'test'
    _call(['test.py', str(config), str(last), '--work-dir', str(test), *options], folder)
    newest = max(test.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text())['coco/bbox_mAP'], (time.monotonic() - start) / 60


def _call(command: list[str], folder: Path) -> None:
    log = folder / 'output.txt'
    script, *arguments = command
    with log.open('a') as file:
        code = subprocess.run(
            [sys.executable, str(ROOT / 'tools' / script), *arguments],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
        ).returncode
    if code:
        raise RuntimeError(f'{script} failed with exit code {code}, see {log}')


class Comparison:
    """Trainings in parallel, each started as soon as a place is free.

    Args:
        args: The parsed arguments.
        results: What is finished.
    """

    def __init__(self, args: argparse.Namespace, results: Results) -> None:
        self._args = args
        self._results = results
        self._cells = cells_of(args.methods, args.bits)
        self._failed: dict[str, str] = {}

    def train_all(self) -> dict[str, str]:
        """Train what is missing, and return the runs that failed with the reasons."""
        with ThreadPoolExecutor(self._args.jobs) as pool:
            running: dict[Future, Run] = {}
            try:
                while True:
                    self._start(pool, running)
                    if not running:
                        return self._failed
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._collect(running.pop(future), future)
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _start(self, pool: ThreadPoolExecutor, running: dict[Future, Run]) -> None:
        for run in missing_runs(self._cells, self._args.seeds, self._results.scores()):
            if len(running) == self._args.jobs:
                return
            if run not in running.values() and run.key not in self._failed:
                print(f'{self._progress()} {run.key}', flush=True)
                running[pool.submit(train, run, self._args)] = run

    def _collect(self, run: Run, future: Future) -> None:
        error = future.exception()
        if error is None:
            score, minutes = future.result()
            self._results.add(run, score, minutes)
            print(f'    {run.key}: {score:.3f} in {minutes:.1f} min', flush=True)
        elif isinstance(error, (RuntimeError, OSError, ValueError, KeyError)):
            self._failed[run.key] = str(error)
            print(f'    {run.key}: {error}', flush=True)
        else:
            raise error

    def _progress(self) -> str:
        total = number_of_runs(self._cells, self._args.seeds)
        done = self._results.number_in(self._cells, self._args.seeds)
        hours = self._results.minutes_per_epoch() / self._args.jobs / 60
        hours *= self._results.epochs_left(self._cells, self._args.seeds)
        return f'[{done}/{total}, about {hours:.1f} h left]' if done else f'[0/{total}]'


def main() -> None:
    args = parse_args()
    try:
        results = Results(args.out_dir / 'methods.json', describe(args))
    except ValueError as error:
        sys.exit(f'methods.py: error: {error}')
    try:
        failed = Comparison(args, results).train_all()
    except KeyboardInterrupt:
        sys.exit('methods.py: interrupted; the same command continues from here')
    text = table(results)
    atomic.write_text(args.out_dir / 'methods.md', text)
    atomic.write_bytes(args.out_dir / 'methods.png', draw(results))
    print(f'\n{text}\nwritten: {args.out_dir}/methods.json, .md and .png')
    if failed:
        reasons = ''.join(f'\n  {key}: {reason}' for key, reason in failed.items())
        sys.exit(f'methods.py: error: {len(failed)} trainings failed:{reasons}')


if __name__ == '__main__':
    main()

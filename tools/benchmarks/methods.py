"""Compares methods of quantization on the demo: trainings from one float checkpoint.

    python tools/benchmarks/methods.py [--methods u LSQ] [--bits 2/2 1/2] [--seeds 0 1 2]

trains the demo's detector with each method at each number of bits. The first seed is trained at
three learning rates, the other ones at the best of these. What is finished is kept in
``methods.json``, beside a table and a picture; after an interruption the same command continues.
"""

import argparse
import json
import signal
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


class Trainer:
    """Runs trainings as processes, as a user would.

    Args:
        args: The parsed arguments.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._processes: set[subprocess.Popen] = set()

    def train(self, run: Run) -> tuple[float, float]:
        """Train and evaluate, and return the hard mAP and the minutes it took.

        Raises:
            RuntimeError: If a command fails; the log is named.
        """
        folder = (self._args.out_dir / 'runs' / run.folder).resolve()
        config, test = folder / 'config.py', folder / 'test'
        atomic.write_text(config, config_text(run, self._args.checkpoint.resolve()))
        start = time.monotonic()
        self._call('train.py', folder, config, '--work-dir', folder, '--resume')
        last = folder / f'epoch_{run.cell.epochs}.pth'
        self._call('test.py', folder, config, last, '--work-dir', test)
        newest = max(test.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
        score = json.loads(newest.read_text())['coco/bbox_mAP']
        return score, (time.monotonic() - start) / 60

    def stop(self) -> None:
        """End the running processes."""
        for process in list(self._processes):
            process.terminate()

    def _call(self, script: str, folder: Path, *arguments: str | Path) -> None:
        log = folder / 'output.txt'
        command = [sys.executable, ROOT / 'tools' / script, *arguments]
        if self._args.cfg_options:
            command += ['--cfg-options', *self._args.cfg_options]
        with (
            log.open('a') as file,
            subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as process,
        ):
            self._processes.add(process)
            code = process.wait()
            self._processes.discard(process)
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
        self._trainer = Trainer(args)
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
            except BaseException:
                self._trainer.stop()  # the pool waits for what is running
                raise

    def _start(self, pool: ThreadPoolExecutor, running: dict[Future, Run]) -> None:
        for run in missing_runs(self._cells, self._args.seeds, self._results.scores()):
            if len(running) == self._args.jobs:
                return
            if run not in running.values() and run.key not in self._failed:
                print(f'{self._progress()} {run.key}', flush=True)
                running[pool.submit(self._trainer.train, run)] = run

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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that trainings are ended
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

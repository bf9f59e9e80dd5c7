"""Comparisons of trainings of the demo: one float checkpoint, many trainings, a json file.

A tool gives the plan, which says what to train next, and draws the results.
"""

import argparse
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from comparison_configs import ROOT, START, annotation_file, digest
from comparison_results import Results
from matplotlib.figure import Figure

from mmqnet import atomic
from mmqnet.checks import check_seed
from mmqnet.command_line import add_settings, positive_integer
from mmqnet.visualization.style import save_figure

_SCORES = {'val': 'mAP', 'test': 'test_mAP'}  # what the results call that of a split


class Run(Protocol):
    """One training."""

    @property
    def key(self) -> str:
        """Name in the results."""

    @property
    def fields(self) -> dict[str, Any]:
        """What a row of the results says of it."""

    @property
    def epochs(self) -> int:
        """Epochs of the training."""

    @property
    def splits(self) -> Sequence[str]:
        """Which splits of the data it is evaluated on, ``'val'`` among them."""

    def config_text(self, checkpoint: Path) -> str:
        """Return the config of the training, which may begin with the float checkpoint."""

    def measure(self, work_dir: Path) -> dict[str, Any]:
        """Return what the results keep of the training's log, beside the mAP."""


class Plan(Protocol):
    """What a comparison trains."""

    def total(self, scores: Mapping[str, float]) -> int:
        """Return how many trainings the comparison has, from the mAP of the finished ones."""

    def missing(self, scores: Mapping[str, float]) -> list[Run]:
        """Return the trainings to start next, in order, from the mAP of the finished ones."""

    def left(self, scores: Mapping[str, float]) -> list[int]:
        """Return the epochs of each training that is left, also of those not yet to be started."""


@dataclass(frozen=True)
class Report:
    """How a tool shows its results: a Markdown table and a picture."""

    table: Callable[[Any], str]
    draw: Callable[[Any], Figure]


def add_arguments(parser: argparse.ArgumentParser, out_dir: str) -> None:
    """Add what all comparisons are asked."""
    parser.add_argument('--seeds', nargs='+', type=seed, default=[0, 1, 2])
    parser.add_argument(
        '--checkpoint',
        type=Path,
        default=START,
        help="float weights of the demo's model (those in docs/experiments)",
    )
    parser.add_argument('--out-dir', type=Path, default=Path(out_dir))
    parser.add_argument('--jobs', type=positive_integer, default=1, help='trainings at a time')
    add_settings(parser)
    parser.set_defaults(cfg_options=[])


def seed(text: str) -> int:
    """Convert an argument to the seed of a training; for argparse's ``type``."""
    value = int(text)
    try:
        check_seed(value, 'seed')
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return value


def learning_rate(text: str) -> float:
    """Convert an argument to a learning rate; for argparse's ``type``."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'should be a positive number, but got {text}')
    return value


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments, each value of a list once, and check that the checkpoint is there."""
    args = parser.parse_args()
    for name, values in vars(args).items():
        if isinstance(values, list | tuple) and name != 'cfg_options':
            setattr(args, name, list(dict.fromkeys(values)))
    if not args.checkpoint.is_file():
        parser.error(f'--checkpoint {args.checkpoint} does not exist')
    return args


def folder_of(key: str) -> str:
    """Return the name of a training's folder, without blanks or slashes."""
    return key.replace(' + ', '-').replace('/', '-').replace(' ', '_')


class Trainer:
    """Runs trainings as processes, as a user would.

    Args:
        args: The parsed arguments.
        conditions: What all trainings share. What is unfinished under other ones does not go on.
    """

    def __init__(self, args: argparse.Namespace, conditions: Mapping[str, Any]) -> None:
        self._args = args
        self._conditions = conditions
        self._processes: set[subprocess.Popen] = set()

    def train(self, run: Run) -> dict[str, Any]:
        """Train and evaluate.

        Returns:
            dict: The hard ``'mAP'``, ``'test_mAP'`` if it is evaluated on that split too, the
            ``'minutes'`` it took (None if it was interrupted), and what the run measures.

        Raises:
            RuntimeError: If a command fails; the log is named.
        """
        text = run.config_text(self._args.checkpoint.resolve())
        name = f'{folder_of(run.key)}_{digest([text, self._conditions])}'
        folder = (self._args.out_dir / 'runs' / name).resolve()
        config = folder / 'config.py'
        atomic.write_text(config, text)
        is_resumed = (folder / 'last_checkpoint').exists()
        start = time.monotonic()
        self._call('train.py', folder, config, '--work-dir', folder, '--resume')
        last = folder / f'epoch_{run.epochs}.pth'
        scores = {_SCORES[split]: self._evaluate(config, last, split) for split in run.splits}
        minutes = None if is_resumed else round((time.monotonic() - start) / 60, 1)
        return dict(**scores, minutes=minutes, **run.measure(folder))

    def stop(self) -> None:
        """End the running processes."""
        for process in list(self._processes):
            process.terminate()

    def _evaluate(self, config: Path, checkpoint: Path, split: str) -> float:
        annotations = annotation_file(self._args.cfg_options, split)
        out_dir = config.parent / split
        settings = [
            f'test_dataloader.dataset.ann_file={annotations}',
            f'test_dataloader.dataset.data_prefix.img={split}/',
            f'test_evaluator.ann_file={annotations}',
        ]
        arguments = (config, checkpoint, '--work-dir', out_dir)
        self._call('test.py', config.parent, *arguments, settings=settings)
        newest = max(out_dir.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
        return json.loads(newest.read_text())['coco/bbox_mAP']

    def _call(
        self, script: str, folder: Path, *arguments: str | Path, settings: Sequence[str] = ()
    ) -> None:
        log = folder / 'output.txt'
        command = [sys.executable, ROOT / 'tools' / script, *arguments]
        if self._args.cfg_options or settings:
            command += ['--cfg-options', *self._args.cfg_options, *settings]
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
        plan: What to train.
        results: What is finished.
    """

    def __init__(self, args: argparse.Namespace, plan: Plan, results: Results) -> None:
        self._jobs: int = args.jobs
        self._trainer = Trainer(args, results.conditions)
        self._plan = plan
        self._results = results
        self._failed: dict[str, str] = {}

    def train_all(self) -> dict[str, str]:
        """Train what is missing, and return the runs that failed with the reasons."""
        with ThreadPoolExecutor(self._jobs) as pool:
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
        for run in self._plan.missing(self._results.scores()):
            if len(running) == self._jobs:
                return
            if run not in running.values() and run.key not in self._failed:
                print(f'{self._progress()} {run.key}', flush=True)
                running[pool.submit(self._trainer.train, run)] = run

    def _collect(self, run: Run, future: Future) -> None:
        error = future.exception()
        if error is None:
            found = future.result()
            self._results.add(run, found)
            took = '' if found['minutes'] is None else f' in {found["minutes"]:.1f} min'
            print(f'    {run.key}: {found["mAP"]:.3f}{took}', flush=True)
        elif isinstance(error, (RuntimeError, OSError, ValueError, KeyError)):
            self._failed[run.key] = str(error)
            print(f'    {run.key}: {error}', flush=True)
        else:
            raise error

    def _progress(self) -> str:
        scores = self._results.scores()
        left, total = self._plan.left(scores), self._plan.total(scores)
        done = total - len(left)
        hours = sum(left) * self._results.minutes_per_epoch() / self._jobs / 60
        return f'[{done}/{total}, about {hours:.1f} h left]' if done else f'[0/{total}]'


def compare(args: argparse.Namespace, plan: Plan, results: Results, report: Report) -> None:
    """Train what is missing, and write table and picture beside the json file.

    Exits with a message if a training failed, after writing what there is.
    """
    path, tool = results.path, f'{results.path.stem}.py'
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that trainings are ended
    try:
        # before the first training: what is killed in it must not go on under other conditions
        results.write()
        failed = Comparison(args, plan, results).train_all()
    except OSError as error:
        sys.exit(f'{tool}: error: {error}')
    except KeyboardInterrupt:
        sys.exit(f'{tool}: interrupted; the same command continues from here')
    text = report.table(results)
    atomic.write_text(path.with_suffix('.md'), text)
    save_figure(report.draw(results), path.with_suffix('.png'))
    print(f'\n{text}\nwritten: {path}, .md and .png')
    if failed:
        reasons = ''.join(f'\n  {key}: {reason}' for key, reason in failed.items())
        sys.exit(f'{tool}: error: {len(failed)} trainings failed:{reasons}')

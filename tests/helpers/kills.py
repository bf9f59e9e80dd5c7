"""Kills trainings at random moments, resumes them, and compares their ends with an undisturbed one.

Run as a script: python tests/helpers/kills.py. It writes its record after each kill and goes on
from it when it is started again.
"""

import argparse
import dataclasses
import json
import random
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fork_server import ForkServer
from mmengine.runner import find_latest_checkpoint
from same_end import differences
from toy_data import make_configs, make_data, write_float_checkpoint
from tqdm import tqdm

from mmqnet.atomic import write_text

ROOT = Path(__file__).parents[2]
# Averages, a change of phase, and what SSD's own pipeline draws, in two workers.
AUGMENTED = """
_base_ = '{base}.py'
size = (64, 64)
pipeline = [
    *_base_.pipeline[:2],
    dict(type='Expand', mean=[104, 117, 123], to_rgb=True, ratio_range=(1, 2)),
    dict(type='MinIoURandomCrop', min_ious=(0.1, 0.5), min_crop_size=0.3),
    dict(type='Resize', scale=size, keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    _base_.pipeline[2]]
train_dataloader = dict(num_workers=2, persistent_workers=True, dataset=dict(dataset=dict(
    pipeline=pipeline)))
custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(type='mmqnet.CheckpointHook', max_keep_ckpts=1),
    randomness=dict(type='mmqnet.RandomnessHook'),
    gap=dict(interval=100),
    phases=dict(schedule=[
        dict(begin=0, phase='weights'),
        dict(begin=0.45, phase='activations'),
        dict(begin=0.8, phase='both')]))
train_cfg = dict(max_epochs=4, val_interval=4)
"""
BY_ITERATIONS = """
_base_ = 'augmented.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler'))
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=20, val_interval=20)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4))
"""
LOOPS = ('epochs', 'iterations')


@dataclass
class Kill:
    """One training that was killed and resumed.

    Attributes:
        loop: 'epochs' or 'iterations'.
        processes: How many trained together.
        share: Of the training's iterations, its start and its end, when it was killed.
        resumed_from: Name of the checkpoint, or None where the run had saved none.
        differences: Names of what differs from the end of an undisturbed run.
    """

    loop: str
    processes: int
    share: float
    resumed_from: str | None
    differences: list[str]


def write_configs(folder: Path) -> None:
    """Write data, configs and the float checkpoint that the trainings start from."""
    make_configs(folder, make_data(folder / 'data'))
    write_float_checkpoint(folder, folder / 'float.pth')
    for processes, base in ((1, 'quantized'), (2, 'distributed')):
        place = folder / str(processes)
        place.mkdir()
        for name in ('float.py', 'quantized.py', 'distributed.py'):
            shutil.copy(folder / name, place)
        (place / 'augmented.py').write_text(AUGMENTED.format(base=base))
        shutil.copy(place / 'augmented.py', place / 'epochs.py')
        (place / 'iterations.py').write_text(BY_ITERATIONS)


class Trainings:
    """Trainings of one kind: the undisturbed one, and those that are killed.

    Args:
        server: Starts them.
        folder: Of the configs.
        loop: 'epochs' or 'iterations'.
        processes: How many train together.
    """

    def __init__(self, server: ForkServer, folder: Path, loop: str, processes: int) -> None:
        self._server = server
        self._folder = folder
        self._loop = loop
        self._processes = processes
        begin = time.monotonic()
        self._start(folder / f'{loop}-{processes}')
        self._wait_for(1)
        self._startup = time.monotonic() - begin
        self._whole = self._finish(folder / f'{loop}-{processes}')
        self._iterations = self._count()
        training = time.monotonic() - begin - self._startup
        self._gap = training / self._iterations

    def kill(self, share: float) -> Kill:
        """Kill a training at this share of its iterations and of its end, and resume it."""
        run = Path(tempfile.mkdtemp(dir=self._folder))
        self._start(run)
        done, part = divmod(share * (self._iterations + 1), 1)
        self._wait_for(int(done))
        time.sleep(part * (self._gap if done else self._startup))
        self._server.kill_when(lambda: True)
        latest = find_latest_checkpoint(str(run)) if (run / 'last_checkpoint').exists() else None
        self._start(run)
        differing = differences(self._whole, self._finish(run))
        shutil.rmtree(run)
        name = latest and Path(latest).name
        return Kill(self._loop, self._processes, round(share, 4), name, differing[:5])

    def _count(self) -> int:
        return self._server.output().count('(train)')

    def _wait_for(self, iterations: int) -> None:
        while self._count() < iterations and self._server.is_running():
            time.sleep(0.01)

    def _finish(self, run: Path) -> Path:
        code, output = self._server.wait()
        if code:
            raise RuntimeError(f'a training failed with {code}: {output[-3000:]}')
        return Path(find_latest_checkpoint(str(run)))

    def _start(self, run: Path) -> None:
        launcher = ['--launcher', 'pytorch'] if self._processes > 1 else []
        config = self._folder / str(self._processes) / f'{self._loop}.py'
        self._server.start(
            ROOT / 'tools/train.py', config, '--work-dir', run, '--resume', *launcher,
            '--cfg-options', f'load_from={self._folder / "float.pth"}', processes=self._processes,
        )  # fmt: skip


def planned(number: int, seed: int) -> list[tuple[str, int, float]]:
    """Return loop, processes and share of each kill: ``number`` for a loop, half on two."""
    draw = random.Random(seed)
    return [
        (loop, processes, draw.random())
        for loop in LOOPS
        for processes in (1, 2)
        for _ in range(number // 2)
    ]


def run(number: int, seed: int, record: Path) -> list[Kill]:
    """Make the kills that the record does not hold yet."""
    done = [Kill(**k) for k in json.loads(record.read_text())['kills']] if record.exists() else []
    plan = planned(number, seed)
    with tempfile.TemporaryDirectory() as folder:
        write_configs(Path(folder) / 'configs')
        server = ForkServer(ROOT, Path(folder))
        trainings: dict[tuple[str, int], Trainings] = {}
        for loop, processes, share in tqdm(plan[len(done) :], unit='kill'):
            key = loop, processes
            if key not in trainings:
                trainings[key] = Trainings(server, Path(folder) / 'configs', *key)
            done.append(trainings[key].kill(share))
            write_record(record, seed, done)
        server.close()
    return done


def write_record(record: Path, seed: int, done: list[Kill]) -> None:
    """Write all kills so far."""
    summary = {
        f'{loop}, {processes} process{"es" * (processes > 1)}': dict(
            kills=len(kills),
            bit_equal_ends=sum(not k.differences for k in kills),
            before_the_first_checkpoint=sum(k.resumed_from is None for k in kills),
        )
        for loop in LOOPS
        for processes in (1, 2)
        if (kills := [k for k in done if (k.loop, k.processes) == (loop, processes)])
    }
    content = dict(seed=seed, summary=summary, kills=[dataclasses.asdict(k) for k in done])
    write_text(record, json.dumps(content, indent=1) + '\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--number', type=int, default=50, help='kills for each loop (default 50)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default 0)')
    parser.add_argument('--out', type=Path, required=True, help='record to write or continue')
    args = parser.parse_args()
    done = run(args.number, args.seed, args.out)
    print(json.dumps(json.loads(args.out.read_text())['summary'], indent=1))
    if any(kill.differences for kill in done):
        raise SystemExit('some ends differ')


if __name__ == '__main__':
    main()

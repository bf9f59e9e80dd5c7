"""Saves checkpoints in a process that is killed before its n-th file operation, for every n.

Run as a script: crash_points.py CONFIG WORK_DIR. It trains, and then, again and again from the same
files, forks a process that saves the next checkpoint and the next best one.
"""

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import torch
from killed_runs import kill
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner, find_latest_checkpoint

WRITING = {'write', 'flush', 'close', '__exit__'}  # of files
MOVING = {open, os.fsync, os.rename, os.replace, os.remove}


def kill_before(operation: int) -> None:
    """Kill this process before the ``operation``-th file operation from now on."""
    count = 0

    def profile(frame, event, function):
        nonlocal count
        if event != 'c_call' or frame.f_code.co_filename == subprocess.__file__:
            return
        of_a_file = isinstance(getattr(function, '__self__', None), io.BufferedWriter)
        if function in MOVING or (of_a_file and function.__name__ in WRITING):
            count += 1
            if count == operation:
                kill()

    sys.setprofile(profile)


def save_next(runner: Runner, hook: CheckpointHook) -> None:
    """Run the hook after one more epoch and a validation that is the best so far."""
    hook.after_train_epoch(runner)
    runner.train_loop._epoch += 1
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 1.0})


def check(folder: Path, epochs: range) -> str:
    """Check that a run can resume from the files; return the names of the checkpoints."""
    latest = Path(find_latest_checkpoint(str(folder)))
    saved = torch.load(latest, weights_only=False)
    assert saved['meta']['epoch'] in epochs, saved['meta']['epoch']
    assert latest.name == f'epoch_{saved["meta"]["epoch"]}.pth'
    for path in folder.glob('*.pth'):
        torch.load(path, weights_only=False)
    names = sorted(path.name for path in folder.glob('*.pth'))
    assert any(name.startswith('best') for name in names), names
    return ' '.join(names)


def main() -> None:
    """Train and try every moment; print how many there were and what they left."""
    config, folder = Config.fromfile(sys.argv[1]), Path(sys.argv[2])
    config.work_dir = str(folder)
    runner = Runner.from_cfg(config)
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    epochs = range(runner.epoch, runner.epoch + 2)
    runner.cfg = Config()  # each checkpoint has its text, which takes a second to format
    backup = shutil.copytree(folder, folder.with_suffix('.backup'))
    code, moments, left = -signal.SIGKILL, 0, set()
    while code == -signal.SIGKILL:
        moments += 1
        pid = os.fork()
        if not pid:
            kill_before(moments)
            save_next(runner, hook)
            sys.setprofile(None)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        left.add(check(folder, epochs))
        shutil.rmtree(folder)
        shutil.copytree(backup, folder)
    assert code == 0, code
    print('moments:', moments)
    print('\n'.join(sorted(left)))


if __name__ == '__main__':
    main()

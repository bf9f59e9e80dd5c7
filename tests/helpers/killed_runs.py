"""Hooks with which a config ends its own process, or fails, at a chosen moment."""

import multiprocessing
import os
import resource
import signal
import threading
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


def kill() -> None:
    """Kill this process: nothing is flushed, closed or cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class KillInCalibration(Hook):
    """Kill the run in the first forward pass, which belongs to the calibration."""

    def before_run(self, runner):
        runner.model.backbone.layer2.register_forward_hook(lambda *_: kill())


@HOOKS.register_module()
class KillBeforeIteration(Hook):
    """Kill the run just before a training step, after all other hooks."""

    priority = 'LOWEST'

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            kill()


@HOOKS.register_module()
class FailBeforeIteration(Hook):
    """Let the disk, the data or a worker of the data loader fail just before a training step."""

    def __init__(self, iteration, failure, data=None):
        self.iteration = iteration
        self.fail = dict(disk=self.fill_disk, data=self.take_data, worker=self.kill_worker)[failure]
        self.data = data

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            self.fail()

    def fill_disk(self):
        # a checkpoint does not fit, the log does
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, 2**17))

    def take_data(self):
        os.rename(self.data, f'{self.data}.gone')

    def kill_worker(self):
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


@HOOKS.register_module()
class KillInTheMiddleOfSaving(Hook):
    """Kill the run when a part of an epoch's checkpoint is on the disk."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_save_checkpoint(self, runner, checkpoint):
        if runner.epoch + 1 != self.epoch:
            return
        checkpoint['ballast'] = torch.zeros(BALLAST, dtype=torch.uint8)
        threading.Thread(target=self._watch, args=[Path(runner.work_dir)], daemon=True).start()

    def _watch(self, folder):
        names = (f'.epoch_{self.epoch}.pth.part', f'epoch_{self.epoch}.pth')
        paths = [str(folder / name) for name in names]
        while True:
            for path in paths:
                try:
                    size = os.stat(path).st_size
                except FileNotFoundError:
                    continue
                if size:
                    kill()


BALLAST = 2**27

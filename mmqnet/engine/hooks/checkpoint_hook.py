"""Checkpoints that a run can be resumed from whenever it is killed."""

import inspect
from collections import deque
from contextlib import nullcontext
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from mmqnet import atomic
from mmqnet.checks import check_keys
from mmqnet.engine.atomic_backend import ATOMIC, AtomicBackend
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """Save checkpoints of runs that may be killed at any moment.

    MMEngine writes in place, and removes outdated checkpoints before it saves the next one: a run
    that is killed then leaves half a file, an empty ``last_checkpoint``, or nothing. Here files are
    written aside and renamed, ``last_checkpoint`` after the checkpoint that it names, and removing
    comes last. Other storage than local files is left to MMEngine's backends.

    Raises:
        ValueError: If an argument is unknown; MMEngine's finds that when it saves.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.CheckpointHook', interval=1, max_keep_ckpts=2))
    """

    backend_args: dict[str, Any] | None
    keep_ckpt_ids: deque[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        unknown = self.args.keys() - inspect.signature(Runner.save_checkpoint).parameters
        known = list(inspect.signature(MMEngineCheckpointHook.__init__).parameters)[1:-1]
        check_keys(dict.fromkeys(unknown), known, 'CheckpointHook')

    def before_train(self, runner: Runner) -> None:
        """Choose the file backend."""
        folder = self.out_dir or runner.work_dir
        is_own = self.backend_args is not None or self.file_client_args is not None
        if not is_own and isinstance(get_file_backend(folder), LocalBackend):
            self.backend_args = dict(backend=ATOMIC)
        super().before_train(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best checkpoint so far, then remove the one before."""
        backend = self.file_backend
        last = backend.removing_last() if isinstance(backend, AtomicBackend) else nullcontext()
        with last:
            super().after_val_epoch(runner, metrics)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """Save a checkpoint, write its name to ``last_checkpoint``, and remove outdated ones."""
        kept: list[int] = []
        if self.max_keep_ckpts > 0:
            kept = [*(i for i in self.keep_ckpt_ids if i != step), step]
            # all of them: if this process ends before it removes some, the resumed one does
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            # MMEngine looks for it in the work dir, wherever the checkpoints are
            atomic.write_text(f'{runner.work_dir}/last_checkpoint', self.last_ckpt)
        if self.max_keep_ckpts > 0:
            for outdated in kept[: -self.max_keep_ckpts]:
                self._remove(outdated)
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)

    def _remove(self, step: int) -> None:
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        if not is_main_process():
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # a checkpoint of DeepSpeed
            self.file_backend.rmtree(path)

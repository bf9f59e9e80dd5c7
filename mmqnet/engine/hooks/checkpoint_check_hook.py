"""Checks the checkpoint of a run before the first iteration."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmqnet.engine.loading import check_checkpoint, check_file
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Refuse files that are no checkpoint and checkpoints of other models, by their names.

    Among them is a quantized checkpoint for a float config, which would train or be tested as a
    float model. Our command lines register this hook for configs without ``CalibrationHook``,
    which makes the same checks; a config need not name it.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.CheckpointCheckHook'))
    """

    # before EMAHook, which loads the checkpoint into its averages
    priority = 'ABOVE_NORMAL'

    def before_run(self, runner: Runner) -> None:
        """Check the file.

        Raises:
            FileNotFoundError: If it does not exist.
            ValueError: If it is truncated or no checkpoint.
        """
        check_file(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check what it holds.

        Raises:
            ValueError: If it is of another model, or quantized in another way.
        """
        check_checkpoint(runner, checkpoint)

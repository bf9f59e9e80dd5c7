"""Lets the float model teach the quantized one."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmqnet.distillation import DistillationConfig, Distiller, build_teacher
from mmqnet.engine.unwrap import unwrap
from mmqnet.registry import HOOKS


@HOOKS.register_module()
class DistillationHook(Hook):
    """Add the distance between the outputs of the float and of the quantized model to the losses.

    The teacher is the float model of the same config. It belongs to the hook, not to the model: it
    is in no checkpoint, no optimizer, and nothing of it is communicated between processes. At
    every iteration it sees the pictures that the quantized model sees, augmented and of the same
    batch, in evaluation mode and without gradients. What is compared, and how, say
    :class:`DistillationConfig` and :func:`divergence`.

    The log has ``distillation/loss_features`` and ``distillation/loss_outputs``, with their
    weights.

    Args:
        teacher (str): Checkpoint of the float model, usually that of ``load_from``.
        features (list[str], optional): Names of the modules whose outputs are learned. Default
            None: the neck of a detector; the backbone of a classifier, or where there is no neck.
        feature_weight (float): Factor of the loss of the features; 0 leaves them out. Default 10.
        output_weight (float): Factor of the loss of the head's outputs; 0 leaves them out.
            Default 5.
        temperature (float): Of the distributions that are compared. Default 1.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> from mmengine.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='mmqnet.DistillationHook', teacher='float.pth'))
    """

    def __init__(
        self,
        teacher: str,
        features: Sequence[str] | None = None,
        feature_weight: float = 10.0,
        output_weight: float = 5.0,
        temperature: float = 1.0,
    ) -> None:
        if not isinstance(teacher, str):
            raise TypeError(
                '`DistillationHook.teacher` should be the path of a checkpoint, but got '
                f'{teacher!r}'
            )
        self._path = teacher
        self._config = DistillationConfig(
            features, feature_weight, output_weight, temperature, key='DistillationHook'
        )
        self._distiller: Distiller

    def before_run(self, runner: Runner) -> None:
        """Build the teacher of a training, before anything is loaded or calibrated.

        Raises:
            FileNotFoundError: If its checkpoint does not exist.
            ValueError: If it does not fit the model, or a named feature does not exist.
        """
        if not isinstance(runner._train_loop, BaseLoop):  # a test needs no teacher
            return
        if 'model' not in runner.cfg:
            raise ValueError(
                'DistillationHook builds the teacher from `model` of the config, which has none: '
                'build the runner from a config, `Runner.from_cfg`'
            )
        metainfo = getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}
        teacher = build_teacher(runner.cfg.model, self._path, metainfo.get('classes'))
        model = unwrap(runner.model)
        teacher.to(next(model.parameters()).device)
        self._distiller = Distiller(model, teacher, self._config)

    def before_train(self, runner: Runner) -> None:
        """Begin to teach; EMAHook has made its copy of the model by now."""
        self._distiller.attach()

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was."""
        self._distiller.remove()

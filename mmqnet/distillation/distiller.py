"""Adds what a teacher teaches to the losses of a student."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmqnet.checks import check_number, did_you_mean
from mmqnet.distillation.divergence import divergence
from mmqnet.distillation.recorder import Recorder

# modules of a model whose input is what `extract_feat` returns, and their base classes
_HEADS = {'bbox_head': 'BaseDenseHead', 'rpn_head': 'BaseDenseHead', 'head': 'ClsHead'}


@dataclass(frozen=True)
class DistillationConfig:
    """What a student learns from its teacher.

    Attributes:
        features: Names of the modules whose outputs it learns. Default None: the neck of a
            detector; the backbone of a classifier, or where there is no neck.
        feature_weight: Factor of the loss of the features; 0 leaves them out. Default 10.
        output_weight: Factor of the loss of the head's outputs; 0 leaves them out. Default 5.
        temperature: Of the distributions that are compared. Default 1.
        key: Where it is in the config file, for messages.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a number is out of range, or nothing is left to learn.
    """

    features: Sequence[str] | None = None
    feature_weight: float = 10.0
    output_weight: float = 5.0
    temperature: float = 1.0
    key: str = 'distillation'

    def __post_init__(self) -> None:
        for name in ('feature_weight', 'output_weight'):
            check_number(getattr(self, name), f'{self.key}.{name}', zero=True)
        check_number(self.temperature, f'{self.key}.temperature')
        names = self.features
        if names is not None and (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not all(isinstance(name, str) for name in names)
        ):
            raise TypeError(f'`{self.key}.features` should be a list of names, but got {names!r}')
        if names is not None and not names:
            raise ValueError(
                f'`{self.key}.features` should name modules; to learn the outputs alone, set '
                f'`{self.key}.feature_weight=0`'
            )
        if names is not None and not self.feature_weight:
            raise ValueError(
                f'`{self.key}.features` has no effect with `{self.key}.feature_weight=0`: drop one '
                'of them'
            )
        if not self.feature_weight and not self.output_weight:
            raise ValueError(
                f'`{self.key}.feature_weight` and `{self.key}.output_weight` are both 0: nothing '
                'is left to learn'
            )


class Distiller:
    """Let a teacher add losses to a student's, while the student trains.

    From :meth:`attach` to :meth:`remove` the student calls the teacher at the end of its own
    ``forward(mode='loss')``, with the same pictures, by forward hooks of torch: its class, its
    state dict and its parameters do not change.

    Args:
        student: A quantized model of MMDetection or MMPretrain, not wrapped.
        teacher: Its float model, see :func:`build_teacher`.
        config: What is learned.

    Raises:
        ValueError: If a named feature does not exist or is not computed by the part of the model
            that the teacher runs, or the model has no head whose outputs could be learned.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, config: DistillationConfig) -> None:
        self._student, self._teacher, self._config = student, teacher, config
        self._head = _head_of(student, config)
        # of the teacher: the student has quantizers beside what both have
        self._features = _features_of(teacher, self._head, config)
        self._outputs = [self._head] if config.output_weight else []
        if self._head:
            # some heads scale their boxes in evaluation only; the layers below go on evaluating
            teacher.get_submodule(self._head).training = True

    def attach(self) -> None:
        """Begin to teach; a copy of the student that is made from now on has one of the teacher."""
        names = [*self._features, *self._outputs]
        self._of_student = Recorder(self._student, names)
        self._of_teacher = Recorder(self._teacher, names)
        self._handles = [
            self._student.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._student.register_forward_hook(self._add_losses, with_kwargs=True),
        ]

    def remove(self) -> None:
        """Leave both models as they were."""
        self._of_student.remove()
        self._of_teacher.remove()
        for handle in self._handles:
            handle.remove()

    def _begin(self, student: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if student.training and kwargs.get('mode', args[2] if len(args) > 2 else '') == 'loss':
            self._of_student.start()

    def _add_losses(
        self, student: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], losses: Any
    ) -> Any:
        found = self._of_student.stop()
        if not found:  # not a training step
            return losses
        wanted = self._teach(args[0] if args else kwargs['inputs'])
        return {**losses, **self._losses(found, wanted)}

    @torch.no_grad()
    def _teach(self, pictures: Tensor) -> dict[str, list[Tensor]]:
        self._of_teacher.start()
        features = self._teacher.extract_feat(pictures)  # type: ignore[operator]
        if any(name.split('.')[0] == self._head for name in (*self._features, *self._outputs)):
            self._teacher.get_submodule(self._head)(features)
        return self._of_teacher.stop()

    def _losses(
        self, found: dict[str, list[Tensor]], wanted: dict[str, list[Tensor]]
    ) -> dict[str, Tensor]:
        config, losses = self._config, {}
        for loss, weight, names in (
            ('loss_features', config.feature_weight, self._features),
            ('loss_outputs', config.output_weight, self._outputs),
        ):
            distances = [
                divergence(student, teacher, config.temperature)
                for name in names
                for student, teacher in self._pairs(name, found[name], wanted[name])
            ]
            if distances:
                losses[f'distillation/{loss}'] = weight * torch.stack(distances).mean()
        return losses

    def _pairs(
        self, name: str, found: list[Tensor], wanted: list[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (found, wanted)]
        if not found or shapes[0] != shapes[1]:
            raise ValueError(
                f'`{name}` gives the student tensors of the shapes {shapes[0]}, and the teacher '
                f'{shapes[1]}: name another module in `{self._config.key}.features`'
            )
        if not all(tensor.requires_grad for tensor in found):
            raise ValueError(
                f'`{name}` passes no gradient to the student: it is frozen, or inside of a block '
                'with `with_cp=True`; name a module behind it in '
                f'`{self._config.key}.features`'
            )
        return list(zip(found, wanted, strict=True))


def _head_of(model: nn.Module, config: DistillationConfig) -> str:
    """Return the name of the head whose outputs can be learned; empty for none."""
    if not callable(getattr(model, 'extract_feat', None)):
        raise ValueError(
            f'{type(model).__name__} has no `extract_feat`, which the teacher is run by: '
            f'`{config.key}` is for detectors of MMDetection and classifiers of MMPretrain'
        )
    for name, base in _HEADS.items():
        head = getattr(model, name, None)
        if any(kind.__name__ == base for kind in type(head).__mro__):
            return name
    if not config.output_weight:
        return ''
    raise ValueError(
        f'{type(model).__name__} has no dense or classification head whose outputs could be '
        f'learned: set `{config.key}.output_weight=0` to learn the features alone'
    )


def _features_of(model: nn.Module, head: str, config: DistillationConfig) -> list[str]:
    if not config.feature_weight:
        return []
    if config.features is None:
        # behind the neck of a classifier no positions are left
        has_neck = isinstance(getattr(model, 'neck', None), nn.Module) and head != 'head'
        return ['neck' if has_neck else 'backbone']
    names = [name for name, _ in model.named_modules() if name]
    parts = ('backbone', 'neck', *([head] if head else []))
    for name in config.features:
        if name not in names:
            raise ValueError(
                f'`{config.key}.features` names {name!r}, which {type(model).__name__} does not '
                f'have.{did_you_mean(name, names, 3)}'
            )
        if name.split('.')[0] not in parts:
            raise ValueError(
                f'`{config.key}.features` should name modules of {", ".join(parts)}, which the '
                f'teacher runs, but got {name!r}'
            )
    return list(config.features)

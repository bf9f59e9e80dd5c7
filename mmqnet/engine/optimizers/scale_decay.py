"""No weight decay on the scales of quantizers, however the optimizer was built."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.optim import Optimizer

from mmqnet.engine.unwrap import unwrap
from mmqnet.layers import parameter_roles

# What MMEngine's schedulers keep for each parameter group.
_PER_GROUP = ('base_values', '_last_value', 'min_values')
# Of an optimizer wrapper: whether the config itself says how much scales decay.
HAS_SCALE_DECAY = 'mmqnet_has_scale_decay'

Schedulers = Sequence[Any] | Mapping[str, Sequence[Any]] | None


def exempt_scales_from_decay(
    optim_wrapper: Any, param_schedulers: Schedulers, model: nn.Module
) -> None:
    """Take the weight decay off all scales, and say so in one line of the log.

    alpha and beta are learned as logarithms, so decay would pull them to 1, wherever calibration
    put them. A parameter group that holds scales and other parameters is split: the new group,
    behind all others, has no decay and everything else of the old one. Schedulers follow. Called a
    second time it changes nothing. Left alone are scales for which the config names a decay, by
    ``paramwise_cfg.scale.weight_decay`` of :class:`QuantOptimWrapperConstructor`.

    It belongs between building the optimizer and loading its state: into ``before_run``.

    Args:
        optim_wrapper: A runner's; nothing happens while it is a config or None, as in a test.
        param_schedulers: A runner's, built with that wrapper.
        model: A converted model, wrapped or not.
    """
    inner = unwrap(model)
    roles = parameter_roles(inner)
    scales = {id(p) for name, p in inner.named_parameters() if roles[name] == 'scale'}
    exempted = 0
    for wrapper in wrappers_of(optim_wrapper):
        optimizer = wrapper.optimizer
        own = [s for s in flat(param_schedulers) if s.optimizer in (wrapper, optimizer)]
        if not getattr(wrapper, HAS_SCALE_DECAY, False):
            exempted += _exempt(optimizer, own, scales)
    if exempted:
        print_log(
            f'Took the weight decay off {exempted} scales of quantizers',
            logger='current',
            level=logging.INFO,
        )


def check_optimizer_state(optim_wrapper: Any, checkpoint: Mapping[str, Any], path: str) -> None:
    """Refuse a checkpoint whose optimizer has another number of parameter groups.

    Args:
        optim_wrapper: Of a runner that resumes; nothing happens while it is a config or None.
        checkpoint: The whole checkpoint.
        path: Of its file, for the message.

    Raises:
        ValueError: If the state of an optimizer in it does not fit.
    """
    saved = _checked_state(checkpoint, path)
    names = optim_wrapper.keys() if isinstance(optim_wrapper, OptimWrapperDict) else ['']
    for name, wrapper in zip(names, wrappers_of(optim_wrapper), strict=False):
        state = saved.get(name) or {} if name else saved
        found, own = len(state.get('param_groups', ())), len(wrapper.optimizer.param_groups)
        if found not in (0, own):
            raise ValueError(
                f'the optimizer in {path!r} has {found} parameter groups, but that of this run '
                f'has {own}: it was saved with another `optim_wrapper`, or before scales had no '
                'weight decay; take the checkpoint as `load_from` without `resume`, which starts '
                'a new optimizer'
            )


def _checked_state(checkpoint: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return the optimizer's entry, whose parts torch would only use at its first step."""
    saved = checkpoint.get('optimizer', {})
    of_parameters = saved.get('state', {}) if isinstance(saved, Mapping) else {}
    parts = [saved, of_parameters]
    if isinstance(of_parameters, Mapping):
        parts += of_parameters.values()
    if not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(f'`optimizer` in {path!r} should be the state of an optimizer')
    return saved


def wrappers_of(optim_wrapper: Any) -> list[OptimWrapper]:
    """Return a runner's optimizer wrappers, several or one; none while it is a config."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return list(optim_wrapper.values())
    return [optim_wrapper] if isinstance(optim_wrapper, OptimWrapper) else []


def flat(schedulers: Schedulers) -> Iterator[Any]:
    """Yield a runner's schedulers, of all its optimizers."""
    lists = schedulers.values() if isinstance(schedulers, Mapping) else [schedulers or ()]
    for several in lists:
        yield from several


def _exempt(optimizer: Optimizer, schedulers: list[Any], scales: set[int]) -> int:
    """Take the decay off the scales of one optimizer, and return how many there are."""
    is_scheduled = any(s.param_name == 'weight_decay' for s in schedulers)
    exempted, places = 0, []
    for i, group in enumerate(list(optimizer.param_groups)):
        of_scales = [id(p) in scales for p in group['params']]
        if not any(of_scales) or not (group.get('weight_decay') or is_scheduled):
            continue
        if all(of_scales):
            places.append(i)
        elif _can_split(optimizer):
            places.append(len(optimizer.param_groups))
            _split(optimizer, i, of_scales, schedulers)
        else:
            continue
        exempted += sum(of_scales)
        optimizer.param_groups[places[-1]]['weight_decay'] = 0.0
    if is_scheduled and places:
        _keep_without_decay(optimizer, places)
    return exempted


def _can_split(optimizer: Optimizer) -> bool:
    """Whether groups may be changed: ZeroRedundancyOptimizer, for one, keeps them twice."""
    if getattr(type(optimizer), 'add_param_group', None) is Optimizer.add_param_group:
        return True
    print_log(
        f'Scales of quantizers have weight decay, and the groups of {type(optimizer).__name__} '
        "cannot be split: set `optim_wrapper.constructor='mmqnet.QuantOptimWrapperConstructor'`",
        logger='current',
        level=logging.WARNING,
    )
    return False


def _split(optimizer: Optimizer, index: int, moves: list[bool], schedulers: Iterable[Any]) -> None:
    """Move the marked parameters of a group into a new one behind all others."""
    old = optimizer.param_groups[index]
    new = dict(old)
    for key in ('params', 'param_names'):  # the names of layer-wise constructors
        if key in old:
            new[key] = [value for value, moved in zip(old[key], moves, strict=True) if moved]
            old[key] = [value for value, moved in zip(old[key], moves, strict=True) if not moved]
    end = len(optimizer.param_groups)
    optimizer.add_param_group(new)
    for scheduler in schedulers:
        for key in _PER_GROUP:
            if hasattr(scheduler, key):  # an optimizer wrapper may have a last one, its own rate
                values = getattr(scheduler, key)
                values.insert(end, values[index])


def _keep_without_decay(optimizer: Optimizer, places: list[int]) -> None:
    """Undo before each step what a schedule of the weight decay has written."""

    def reset(optimizer: Optimizer, *_: Any) -> None:
        for place in places:
            optimizer.param_groups[place]['weight_decay'] = 0.0

    optimizer.register_step_pre_hook(reset)

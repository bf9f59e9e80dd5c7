"""Parameter groups of their own for quantized weights, scales and all others."""

from collections.abc import Iterable
from typing import Any, ClassVar

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmqnet.checks import check_keys, check_number
from mmqnet.engine.optimizers.one_cycle import RATE_RATIOS
from mmqnet.engine.optimizers.scale_decay import HAS_SCALE_DECAY
from mmqnet.engine.unwrap import unwrap
from mmqnet.layers import parameter_roles
from mmqnet.registry import OPTIM_WRAPPER_CONSTRUCTORS

PARAMETER_ROLES = ('quantized', 'scale', 'other')
_OF_MMENGINE = (
    'bias_lr_mult',
    'bias_decay_mult',
    'norm_decay_mult',
    'flat_decay_mult',
    'dwconv_decay_mult',
    'dcn_offset_lr_mult',
    'bypass_duplicate',
    'custom_keys',
)
_SETTINGS = ('lr', 'lr_mult', 'weight_decay')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class QuantOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Build an optimizer with settings by the role of a parameter in quantization.

    ``paramwise_cfg`` takes three more keys, each a dict with ``lr`` (the rate itself), or
    ``lr_mult``, and ``weight_decay``:

    - ``quantized``: weights behind a quantizer;
    - ``scale``: what quantizers learn (alpha, beta, thresholds); no weight decay by default;
    - ``other``: everything else.

    None in place of a dict means no settings, so a config can drop those that it inherits.
    MMEngine's own keys (``norm_decay_mult``, ``custom_keys``, ...) still work; where both apply to
    a parameter, the role's setting wins. Parameters with equal settings share a group; one that
    several modules share is in it once, with the settings of its first name. Under
    OneCycleLR, whose ``eta_max`` stands for the optimizer's ``lr``, rates keep their ratios where
    ``CalibrationHook`` is among the hooks, see :func:`keep_rate_ratios`.

    Attributes:
        known_keys: The keys of ``paramwise_cfg``; a subclass may have more.

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If there are unknown keys, or a role has a value that is negative or not finite,
            or both ``lr`` and ``lr_mult``, or ``lr_mult`` where the optimizer has no ``lr``.

    Example:
        >>> from mmengine.optim import build_optim_wrapper
        >>> from mmqnet.layers import QuantLinear
        >>> quantized = QuantLinear(8, 4, weight_quantizer=dict(levels='pm4'))
        >>> model = nn.Sequential(quantized, nn.Linear(4, 2))
        >>> wrapper = build_optim_wrapper(model, dict(
        ...     constructor='mmqnet.QuantOptimWrapperConstructor',
        ...     optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01),
        ...     paramwise_cfg=dict(quantized=dict(lr=1e-5), scale=dict(lr=1e-3))))
        >>> sorted({(group['lr'], group['weight_decay']) for group in wrapper.param_groups})
        [(1e-05, 0.01), (0.001, 0.0), (0.1, 0.01)]
    """

    known_keys: ClassVar[tuple[str, ...]] = (*PARAMETER_ROLES, *_OF_MMENGINE)

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        settings = {} if paramwise_cfg is None else paramwise_cfg
        check_keys(settings, self.known_keys, 'paramwise_cfg')
        settings = dict(settings)
        self._settings = {
            role: _check_setting(settings.pop(role, None), role) for role in PARAMETER_ROLES
        }
        self._has_scale_decay = 'weight_decay' in self._settings['scale']
        self._settings['scale'].setdefault('weight_decay', 0.0)
        # an empty dict would make MMEngine put all parameters into one group
        super().__init__(optim_wrapper_cfg, settings or {'custom_keys': {}})
        for role, setting in self._settings.items():
            if 'lr_mult' in setting and self.base_lr is None:
                raise ValueError(
                    f'`paramwise_cfg.{role}.lr_mult` multiplies `optimizer.lr`, which is missing: '
                    f'name it, or take `paramwise_cfg.{role}.lr`'
                )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper for a converted model, wrapped or not."""
        inner = unwrap(model)
        roles = parameter_roles(inner)
        self._roles = {id(parameter): roles[n] for n, parameter in inner.named_parameters()}
        wrapper = super().__call__(model)
        setattr(wrapper, HAS_SCALE_DECAY, self._has_scale_decay)
        if self.base_lr:
            ratios = [group['lr'] / self.base_lr for group in wrapper.optimizer.param_groups]
            setattr(wrapper, RATE_RATIOS, ratios)
        return wrapper

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add the parameters of ``module`` to ``params``, then apply the roles' settings."""
        super().add_params(params, module, prefix=prefix, is_dcn_module=is_dcn_module)
        if prefix:  # called again for each child; the settings are applied once, to all
            return
        # MMEngine has a group for each name of a parameter; an optimizer would update it for each
        groups: dict[int, dict[str, Any]] = {}
        for group in params:
            (parameter,) = group['params']
            groups.setdefault(id(parameter), group)
        for key, group in groups.items():
            self._apply(group, self._settings[self._roles[key]])
        params[:] = _merge(groups.values())

    def _apply(self, group: dict[str, Any], setting: dict[str, float]) -> None:
        if 'lr' in setting:
            group['lr'] = setting['lr']
        elif 'lr_mult' in setting:
            group['lr'] = self.base_lr * setting['lr_mult']
        if 'weight_decay' in setting:
            group['weight_decay'] = setting['weight_decay']


def _merge(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge groups with equal settings: optimizers update a group at once."""
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in groups:
        setting = {key: value for key, value in group.items() if key != 'params'}
        first = merged.setdefault(tuple(sorted(setting.items())), {**setting, 'params': []})
        first['params'] += group['params']
    return list(merged.values())


def _check_setting(setting: Any, role: str) -> dict[str, float]:
    """Return the settings of a role, for None an empty dict, which a default may complete."""
    key = f'paramwise_cfg.{role}'
    setting = {} if setting is None else setting
    check_keys(setting, _SETTINGS, key)
    for name, value in setting.items():
        check_number(value, f'{key}.{name}', zero=True)
    if 'lr' in setting and 'lr_mult' in setting:
        raise ValueError(f'`{key}` should name `lr` or `lr_mult`, but got both: {dict(setting)}')
    return dict(setting)

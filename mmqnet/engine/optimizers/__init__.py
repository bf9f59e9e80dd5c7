"""Optimizer settings by the role of a parameter in quantization, and mixed precision on CPUs."""

from mmqnet.engine.optimizers.bfloat16_optim_wrapper import BFloat16OptimWrapper
from mmqnet.engine.optimizers.one_cycle import keep_rate_ratios
from mmqnet.engine.optimizers.optim_wrapper_constructor import QuantOptimWrapperConstructor
from mmqnet.engine.optimizers.scale_decay import (
    check_optimizer_state,
    exempt_scales_from_decay,
    wrappers_of,
)

__all__ = [
    'BFloat16OptimWrapper',
    'QuantOptimWrapperConstructor',
    'check_optimizer_state',
    'exempt_scales_from_decay',
    'keep_rate_ratios',
    'wrappers_of',
]

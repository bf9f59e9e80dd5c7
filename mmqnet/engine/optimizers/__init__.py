"""Optimizer settings by the role of a parameter in quantization, and mixed precision on CPUs."""

from mmqnet.engine.optimizers.bfloat16_optim_wrapper import BFloat16OptimWrapper
from mmqnet.engine.optimizers.optim_wrapper_constructor import QuantOptimWrapperConstructor

__all__ = ['BFloat16OptimWrapper', 'QuantOptimWrapperConstructor']

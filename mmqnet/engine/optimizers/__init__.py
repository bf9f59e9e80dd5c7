"""Optimizer settings by the role of a parameter in quantization."""

from mmqnet.engine.optimizers.optim_wrapper_constructor import QuantOptimWrapperConstructor

__all__ = ['QuantOptimWrapperConstructor']

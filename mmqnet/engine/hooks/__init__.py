"""Hooks: when things happen that a quantized training needs beside MMEngine's own."""

from mmqnet.engine.hooks.batch_norm_reestimation_hook import BatchNormReestimationHook
from mmqnet.engine.hooks.calibration_hook import CalibrationHook
from mmqnet.engine.hooks.checkpoint_check_hook import CheckpointCheckHook
from mmqnet.engine.hooks.checkpoint_hook import CheckpointHook
from mmqnet.engine.hooks.distillation_hook import DistillationHook
from mmqnet.engine.hooks.phase_hook import PhaseHook
from mmqnet.engine.hooks.randomness_hook import RandomnessHook
from mmqnet.engine.hooks.scale_log_hook import ScaleLogHook
from mmqnet.engine.hooks.soft_hard_gap_hook import SoftHardGapHook
from mmqnet.engine.hooks.temperature_hook import TemperatureHook

__all__ = [
    'BatchNormReestimationHook',
    'CalibrationHook',
    'CheckpointCheckHook',
    'CheckpointHook',
    'DistillationHook',
    'PhaseHook',
    'RandomnessHook',
    'ScaleLogHook',
    'SoftHardGapHook',
    'TemperatureHook',
]

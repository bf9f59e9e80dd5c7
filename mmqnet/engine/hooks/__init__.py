"""Hooks: when calibration, temperature, phases and the soft/hard comparison happen."""

from mmqnet.engine.hooks.calibration_hook import CalibrationHook
from mmqnet.engine.hooks.phase_hook import PhaseHook
from mmqnet.engine.hooks.soft_hard_gap_hook import SoftHardGapHook
from mmqnet.engine.hooks.temperature_hook import TemperatureHook

__all__ = ['CalibrationHook', 'PhaseHook', 'SoftHardGapHook', 'TemperatureHook']

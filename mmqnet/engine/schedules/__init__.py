"""Temperatures and phases as functions of the epoch or of the training's progress."""

from mmqnet.engine.schedules.phases import Phase, PhaseSchedule
from mmqnet.engine.schedules.temperature import (
    EpochTemperature,
    ProgressTemperature,
    build_temperature,
)

__all__ = ['EpochTemperature', 'Phase', 'PhaseSchedule', 'ProgressTemperature', 'build_temperature']

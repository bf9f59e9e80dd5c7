"""Initial scales and thresholds, from the weights and from training samples."""

from mmqnet.calibration.calibrate import calibrate
from mmqnet.calibration.samples import SampleCollector
from mmqnet.calibration.scales import fit_scales, initial_beta
from mmqnet.calibration.thresholds import initial_thresholds

__all__ = [
    'SampleCollector',
    'calibrate',
    'fit_scales',
    'initial_beta',
    'initial_thresholds',
]

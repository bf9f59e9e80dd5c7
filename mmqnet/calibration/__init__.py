"""Initial scales and thresholds, from the weights and from training samples."""

from mmqnet.calibration.batch_norm import learning_batch_norms, reestimate_batch_norm
from mmqnet.calibration.calibrate import calibrate
from mmqnet.calibration.modes import modes_kept
from mmqnet.calibration.samples import SampleCollector
from mmqnet.calibration.scales import fit_scales, initial_beta
from mmqnet.calibration.thresholds import initial_thresholds
from mmqnet.calibration.training_samples import (
    calibrate_on_samples,
    reestimate_on_samples,
    run_model,
    sample_loader,
)

__all__ = [
    'SampleCollector',
    'calibrate',
    'calibrate_on_samples',
    'fit_scales',
    'initial_beta',
    'initial_thresholds',
    'learning_batch_norms',
    'modes_kept',
    'reestimate_batch_norm',
    'reestimate_on_samples',
    'run_model',
    'sample_loader',
]

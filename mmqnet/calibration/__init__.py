"""Samples of weights and activations, to which quantizers are fitted; statistics of the model."""

from mmqnet.calibration.batch_norm import learning_batch_norms, reestimate_batch_norm
from mmqnet.calibration.calibrate import (
    calibrate,
    check_same_on_processes,
    collect_samples,
    pending_quantizers,
)
from mmqnet.calibration.float_activations import report_float_activations
from mmqnet.calibration.matched_outputs import match_outputs, matchable_layers
from mmqnet.calibration.modes import modes_kept
from mmqnet.calibration.samples import SampleCollector
from mmqnet.calibration.training_samples import (
    batch_of,
    batch_size_of,
    calibrate_on_samples,
    collect_on_samples,
    match_on_samples,
    random_state_of,
    reestimate_on_samples,
    run_model,
    sample_loader,
)

__all__ = [
    'SampleCollector',
    'batch_of',
    'batch_size_of',
    'calibrate',
    'calibrate_on_samples',
    'check_same_on_processes',
    'collect_on_samples',
    'collect_samples',
    'learning_batch_norms',
    'match_on_samples',
    'match_outputs',
    'matchable_layers',
    'modes_kept',
    'pending_quantizers',
    'random_state_of',
    'reestimate_batch_norm',
    'reestimate_on_samples',
    'report_float_activations',
    'run_model',
    'sample_loader',
]

"""What bits cost, layer by layer, and which allocation of bits fits a budget best."""

from mmqnet.sensitivity.allocation import Allocation, Allocator
from mmqnet.sensitivity.alternatives import check_choices, fit_alternatives
from mmqnet.sensitivity.budget import Budget
from mmqnet.sensitivity.choices import FLOAT_BITS, ROLES, Choice, parse_choices
from mmqnet.sensitivity.direct import quantizers_off
from mmqnet.sensitivity.layers import Layer, count_products, layers_of
from mmqnet.sensitivity.measure import TrainingLoss, measure_direct, measure_fast
from mmqnet.sensitivity.mixed_config import (
    check_model,
    check_target,
    overrides_of,
    write_mixed_config,
)
from mmqnet.sensitivity.prepare import as_text, prepare
from mmqnet.sensitivity.record import Sensitivities, check_same, load_sensitivities

__all__ = [
    'FLOAT_BITS',
    'ROLES',
    'Allocation',
    'Allocator',
    'Budget',
    'Choice',
    'Layer',
    'Sensitivities',
    'TrainingLoss',
    'as_text',
    'check_choices',
    'check_model',
    'check_same',
    'check_target',
    'count_products',
    'fit_alternatives',
    'layers_of',
    'load_sensitivities',
    'measure_direct',
    'measure_fast',
    'overrides_of',
    'parse_choices',
    'prepare',
    'quantizers_off',
    'write_mixed_config',
]

"""Registries of mmqnet, each a child of MMEngine's.

A ``type='mmqnet.X'`` in a config makes MMEngine import this module, and looking X up imports the
modules named in ``locations``. So a config needs no ``custom_imports``, and the tools of
MMDetection and MMPretrain build our models too.

MMEngine turns an ImportError raised here into a DEBUG line, after which X is merely "not found". So
this module imports nothing but MMEngine.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

__all__ = ['HOOKS', 'MODELS', 'OPTIM_WRAPPERS', 'OPTIM_WRAPPER_CONSTRUCTORS', 'QUANTIZERS']

SCOPE = 'mmqnet'

# Quantized layers, `QuantizedModel` that builds and converts a whole architecture, exported files.
MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=['mmqnet.layers', 'mmqnet.models', 'mmqnet.export.runtime'],
)
# Methods of quantization, by the `type` of `quantization.weight` and `.activation`. MMEngine has no
# such registry, so this one has no parent.
QUANTIZERS = Registry('quantizer', scope=SCOPE, locations=['mmqnet.quantizers'])
# Calibration, temperature, phases, soft/hard gap, checkpoints, random numbers.
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=['mmqnet.engine.hooks'])
# Learning rates and weight decay of quantized, scale and other parameters.
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=['mmqnet.engine.optimizers'],
)
# Mixed precision on CPUs.
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope=SCOPE,
    locations=['mmqnet.engine.optimizers'],
)

"""Testing an exported file with the data and the evaluator of a config."""

from mmengine.config import Config, ConfigDict

from mmqnet.checks import check_choice
from mmqnet.export.backends import BACKENDS

_WITHOUT_NMS = ('litert', 'executorch')
# What else a config adds watches or changes the layers of a model, and a file has none.
_HOOKS = {
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
    'visualization',
}


def evaluate_exported(config: Config, path: str, backend: str) -> None:
    """Make the test that a config describes run an exported file.

    Args:
        config: Changed in place.
        path: The file, ``.onnx``, ``.tflite`` or ``.pte``.
        backend: ``'onnxruntime'``, ``'openvino'``, ``'litert'`` or ``'executorch'``. Of detectors
            the latter two run what was exported with ``--raw``; boxes are decoded by MMDetection.

    Raises:
        ValueError: If there is no such backend, or it cannot run detectors of two stages.

    Example:
        >>> config = Config(dict(default_scope='mmdet', model=dict(type='SingleStageDetector'),
        ...                      custom_hooks=[dict(type='EMAHook')]))
        >>> evaluate_exported(config, 'ssd.onnx', 'openvino')
        >>> config.model.type, config.custom_hooks
        ('mmqnet.ExportedDetector', [])
    """
    check_choice(backend, BACKENDS, 'backend')
    is_classifier = config.get('default_scope') == 'mmpretrain'
    kind, model, head = 'ExportedDetector', config.model, {}
    if is_classifier:
        kind = 'ExportedClassifier'
    elif backend in _WITHOUT_NMS:
        if 'bbox_head' not in model:
            raise ValueError(
                f'`--backend {backend}` has no NMS and takes one-stage detectors, but `model.type` '
                f'is {model.type!r}: export it to ONNX'
            )
        kind, head = 'ExportedRawDetector', {key: model[key] for key in ('bbox_head', 'test_cfg')}
    config.model = ConfigDict(type=f'mmqnet.{kind}', path=path, backend=backend, **head)
    config.pop('data_preprocessor', None)  # it is in the file
    # DistributedDataParallel refuses a model without parameters
    config.model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel', device_ids=None)
    config.load_from, config.resume, config.custom_hooks = None, False, []
    hooks = config.get('default_hooks') or {}
    config.default_hooks = {name: hook for name, hook in hooks.items() if name in _HOOKS}

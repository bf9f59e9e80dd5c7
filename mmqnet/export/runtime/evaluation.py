"""Testing an exported file with the data and the evaluator of a config."""

from mmengine.config import Config, ConfigDict

from mmqnet.checks import check_choice
from mmqnet.export.backends import BACKENDS

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
        path: The ``.onnx`` file.
        backend: ``'onnxruntime'`` or ``'openvino'``.

    Example:
        >>> config = Config(dict(default_scope='mmdet', model=dict(type='SingleStageDetector'),
        ...                      custom_hooks=[dict(type='EMAHook')]))
        >>> evaluate_exported(config, 'ssd.onnx', 'openvino')
        >>> config.model.type, config.custom_hooks
        ('mmqnet.ExportedDetector', [])
    """
    check_choice(backend, BACKENDS, 'backend')
    is_classifier = config.get('default_scope') == 'mmpretrain'
    kind = 'ExportedClassifier' if is_classifier else 'ExportedDetector'
    config.model = ConfigDict(type=f'mmqnet.{kind}', path=path, backend=backend)
    config.pop('data_preprocessor', None)  # it is in the file
    config.load_from, config.resume, config.custom_hooks = None, False, []
    hooks = config.get('default_hooks') or {}
    config.default_hooks = {name: hook for name, hook in hooks.items() if name in _HOOKS}

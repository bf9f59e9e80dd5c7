"""From a config and a checkpoint to a quantized model, without a runner."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmqnet.layers import parameter_roles
from mmqnet.models.checkpoint_checks import check_state, read_checkpoint, some_of, weights_of
from mmqnet.models.report import QuantizationReport
from mmqnet.quantizers import quantizers_of


def build_model(config: Config, allow_float: bool = False) -> nn.Module:
    """Build the quantized model of a config, in evaluation mode, with random weights.

    Args:
        config: With ``model``.
        allow_float: Whether a float model is built too, instead of being refused.

    Raises:
        ValueError: If the config's model is in float.

    Example:
        >>> model = build_model(Config(dict(model=dict(
        ...     type='mmqnet.QuantizedModel',
        ...     architecture='mmqnet.AlexNetBN', channels=[8] * 5, hidden_channels=8,
        ...     quantization=dict(weight=dict(levels='pm4'))))))
        >>> len(quantizers_of(model)), model.training
        (5, False)
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    if config.get('data_preprocessor'):  # MMPretrain's is outside of the model
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    model = MODELS.build(config.model)
    is_quantized = isinstance(getattr(model, 'quantization_report', None), QuantizationReport)
    if not is_quantized and not allow_float:
        raise ValueError(
            f"`model.type` is {config.model.type!r}, a float model: 'mmqnet.QuantizedModel' with "
            '`architecture` and `quantization` makes a quantized one'
        )
    model.eval()  # SSDVGG's does not return the model
    return model


def load_weights(model: nn.Module, path: str, exact: bool = False) -> None:
    """Load a checkpoint of the float or of the quantized model.

    MMEngine only warns of weights that are missing or do not fit, and leaves random ones: here they
    are refused for all parameters but the scales of quantizers, which a float model does not have.

    Args:
        model: The model.
        path: Of the file.
        exact: Whether weights (tensors of two dimensions or more) that the model has no place for
            are refused too: a deeper model has some, or one with another head. Default False.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is no checkpoint, or one of another model.

    Example:
        >>> import tempfile
        >>> from mmengine.runner import save_checkpoint
        >>> path = f'{tempfile.mkdtemp()}/float.pth'
        >>> save_checkpoint(dict(state_dict=nn.Linear(4, 2).state_dict()), path)
        >>> load_weights(nn.Linear(4, 2), path)
        >>> load_weights(nn.Linear(4, 3), path)
        Traceback (most recent call last):
            ...
        ValueError: `weight` should be of the shape (3, 4), but is (2, 4) in ...
    """
    checkpoint = read_checkpoint(path)
    check_state(model, checkpoint, path)
    weights = weights_of(checkpoint, path)
    missing: list[str] = []
    unexpected: list[str] = []

    def collect(_: nn.Module, keys: Any) -> None:
        missing.extend(keys.missing_keys)
        unexpected.extend(keys.unexpected_keys)

    hook = model.register_load_state_dict_post_hook(collect)
    try:
        load_state_dict(model, weights)
    except ValueError as error:  # quantizers of another config
        raise ValueError(f'{path!r} cannot be loaded: {error}') from error
    finally:
        hook.remove()
    _check_parameters(model, weights, missing, path)
    surplus = [key for key in unexpected if getattr(weights[key], 'ndim', 0) >= 2]
    if exact and surplus:
        raise ValueError(
            f'{path!r} is of another model: it holds {some_of(surplus)}, for which this one has no '
            'place'
        )


def check_calibrated(model: nn.Module, path: str) -> None:
    """Check that a checkpoint held scales and thresholds for all quantizers.

    Raises:
        ValueError: If a quantizer has not been calibrated.

    Example:
        >>> from mmqnet.layers import QuantLinear
        >>> layer = QuantLinear(4, 2, weight_quantizer=dict(levels='pm4'))
        >>> check_calibrated(nn.Sequential(layer), 'a.pth')
        Traceback (most recent call last):
            ...
        ValueError: 'a.pth' does not hold `0.weight_quantizer` (1 quantizers are missing): ...
    """
    pending = [name for name, q in quantizers_of(model).items() if not q.is_calibrated]
    if pending:
        raise ValueError(
            f'{path!r} does not hold `{pending[0]}` ({len(pending)} quantizers are missing): it '
            'is of the float model, or of a training that had not calibrated yet'
        )


def _check_parameters(
    model: nn.Module, saved: Mapping[str, Any], missing: Sequence[str], path: str
) -> None:
    wanted = [key for key, role in parameter_roles(model).items() if role != 'scale']
    for key in wanted:
        parameter = model.get_parameter(key)
        found = saved.get(key, parameter)
        if found.shape != parameter.shape:
            raise ValueError(
                f'`{key}` should be of the shape {tuple(parameter.shape)}, '
                f'but is {tuple(found.shape)} in {path!r}'
            )
    absent = [key for key in wanted if key in missing]
    if absent:
        raise ValueError(
            f'{path!r} holds no {some_of(absent)} ({len(absent)} of {len(wanted)} parameters are '
            'missing): is it of another model?'
        )

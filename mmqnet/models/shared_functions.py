"""``granularity='model'``: one function for all layers together (the paper's table 6).

The quantizer is a part of the model itself, and its layers refer to it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.dist import is_distributed
from torch import nn

from mmqnet.layers import place, weight_parameter
from mmqnet.quantizers import Quantizer, QuantizerConfig, build_quantizer, quantizers_of

_SHARED = 'shared_'  # begins the name of a quantizer that all layers share
_NAMES = dict(weight='weight_quantizer', activation='input_quantizer')


def check_shared_configs(configs: Iterable[QuantizerConfig]) -> None:
    """Refuse different functions for layers that are to share one.

    Args:
        configs: All quantizers of a model's config.

    Raises:
        ValueError: If two of them differ that should be the same.
    """
    first: dict[str, QuantizerConfig] = {}
    for config in configs:
        if config.is_shared and config != first.setdefault(config.role, config):
            raise ValueError(
                f'`{config.key}` differs from `{first[config.role].key}`, though with '
                "`granularity='model'` their layers share one function: give one of them "
                "`granularity='layer'`"
            )


def add_shared_quantizers(
    model: nn.Module, planned: Mapping[str, Sequence[tuple[QuantizerConfig | None, nn.Module]]]
) -> dict[QuantizerConfig | None, Quantizer]:
    """Give a model the quantizers that its layers share, and return them by their configs.

    Args:
        model: The float model.
        planned: For ``'weight'`` and ``'activation'``, the config and the layer of each quantizer
            that is to be made.

    Raises:
        ValueError: If the model cannot hold a part of its own, or blocks that are checkpointed on
            several processes would share a quantizer.
    """
    shared: dict[QuantizerConfig | None, Quantizer] = {}
    for role, pairs in planned.items():
        layers = {layer: config for config, layer in pairs if config and config.is_shared}
        if not layers:
            continue
        _check_model(model)
        config = next(iter(layers.values()))
        weights = [weight_parameter(layer) for layer in layers]
        shared[config] = place(build_quantizer(config), weights).train(model.training)
        model.add_module(f'{_SHARED}{_NAMES[role]}', shared[config])
    model._register_load_state_dict_pre_hook(_check_sharing, with_module=True)
    return shared


def _check_model(model: nn.Module) -> None:
    if isinstance(model, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise ValueError(
            f"`granularity='model'` needs a model that can hold a part of its own, but "
            f'{type(model).__name__} would run it as one of its layers'
        )
    if is_distributed() and any(getattr(m, 'with_cp', False) for m in model.modules()):
        raise ValueError(
            "`granularity='model'` and `with_cp=True` exclude each other on several processes: "
            'each checkpointed block has a backward pass of its own, and '
            'DistributedDataParallel takes one gradient only of what they share'
        )


def _check_sharing(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Check that layers of a checkpoint share a quantizer where those of the model do.

    Otherwise the model's would be taken for missing ones, which calibration fills. It takes the
    whole checkpoint: a module sees its own part only.

    Raises:
        ValueError: If they do not.
    """
    own = {f'{prefix}{name}' for name in quantizers_of(model)}
    saved = {key.removesuffix('.levels') for key in state if key.endswith('_quantizer.levels')}
    missing, foreign = sorted(own - saved), sorted(saved - own)
    for kind in _NAMES.values():
        shared = f'{prefix}{_SHARED}{kind}'
        found, asked = None, 'all layers together'
        if shared in missing:
            found = next((name for name in foreign if name.endswith(f'.{kind}')), None)
        elif shared in foreign and any(name.endswith(f'.{kind}') for name in missing):
            found, asked = shared, 'each layer'
        if found is not None:
            raise ValueError(
                f'the checkpoint holds `{found}`, but the config asks for a function of {asked}: '
                'take the `granularity` that the checkpoint was trained with, or a float checkpoint'
            )

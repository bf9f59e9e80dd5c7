"""What each layer of a float model is to become, and why some stay in float."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from mmqnet.models.inventory import FoundLayer, find_layers
from mmqnet.models.patterns import check_patterns, matches, matches_any
from mmqnet.models.prediction_layers import prediction_layers
from mmqnet.models.quantization_config import LayerQuantizers, QuantizationConfig
from mmqnet.quantizers import QuantizerConfig

_IMAGE_CHANNELS = 4  # at most: RepVGG's first layer has several branches, each with a convolution
_REMEDIES = {
    'not included': 'add it to `quantization.include`',
    'excluded': 'take it out of `quantization.exclude`',
    'first layer': "leave 'first' out of `quantization.keep_float`",
    'last layer': "leave 'last' out of `quantization.keep_float`",
}


@dataclass(frozen=True)
class LayerPlan:
    """One layer: its quantizers, or the reason why it stays in float.

    Attributes:
        name: Dotted module name.
        layer: The float layer.
        weight: Quantizer of its weights, None for float.
        activation: Quantizer of its input, None for float.
        output: Quantizer of its output, None for float.
        reason: Why it stays in float; empty if it does not.
    """

    name: str
    layer: nn.Module
    weight: QuantizerConfig | None = None
    activation: QuantizerConfig | None = None
    output: QuantizerConfig | None = None
    reason: str = ''


def plan_layers(model: nn.Module, config: QuantizationConfig) -> Iterator[LayerPlan]:
    """Plans the conversion of a float model, layer by layer in the order of registration.

    Raises:
        ValueError: If a pattern matches no layer that can be quantized, or an override has no
            effect.
    """
    layers = find_layers(model)
    names = [layer.name for layer in layers if not layer.obstacle]
    if names:
        _check_patterns(config, layers)
    positions = {'first': set(_first_layers(layers)), 'last': prediction_layers(model, names)}
    kept = {name: p for p in config.keep_float for name in positions[p]}
    places = {n: [p for p, those in positions.items() if n in those] for n in names}
    held_back = {
        layer.name: layer.obstacle or _reason_for_float(layer.name, kept, config)
        for layer in layers
    }
    _check_positions(config, places, held_back)
    _check_overrides(config, places, held_back)
    for layer in layers:
        reason, chosen = held_back[layer.name], LayerQuantizers(None, None)
        if not reason:
            chosen = config.for_layer(layer.name, places[layer.name])
        if not any(chosen) and not reason:
            reason = 'config gives it neither weight nor activation levels'
        yield LayerPlan(layer.name, layer.module, *chosen, reason)


def _first_layers(layers: list[FoundLayer]) -> list[str]:
    """Return the first layer that can be quantized, and others that read the image as it does."""
    supported = [layer for layer in layers if not layer.obstacle]
    channels = [getattr(layer.module, 'in_channels', None) for layer in supported]
    of_image = channels[0] if channels and channels[0] and channels[0] <= _IMAGE_CHANNELS else None
    return [
        layer.name
        for position, layer in enumerate(supported)
        if position == 0 or (of_image and channels[position] == of_image)
    ]


def _check_patterns(config: QuantizationConfig, layers: list[FoundLayer]) -> None:
    obstacles = {layer.name: layer.obstacle for layer in layers}
    check_patterns(config.include, obstacles, 'quantization.include')
    check_patterns(config.exclude, dict.fromkeys(obstacles, ''), 'quantization.exclude')
    check_patterns(list(config.overrides), obstacles, 'quantization.overrides')


def _reason_for_float(name: str, kept: dict[str, str], config: QuantizationConfig) -> str:
    if not matches_any(name, config.include):
        return 'not included'
    if matches_any(name, config.exclude):
        return 'excluded'
    if name in kept:
        return f'{kept[name]} layer'
    return ''


def _check_positions(
    config: QuantizationConfig, places: Mapping[str, Sequence[str]], held_back: Mapping[str, str]
) -> None:
    """Refuse a ``first`` or ``last`` that changes nothing; arguments as for overrides."""
    for position in ('first', 'last'):
        reached = [name for name in places if position in places[name]]
        if getattr(config, position) is None or not reached:
            continue
        quantized = [name for name in reached if not held_back[name]]
        if any(
            config.for_layer(name, places[name])
            != config.for_layer(name, [p for p in places[name] if p != position])
            for name in quantized
        ):
            continue
        key, name = f'{config.key}.{position}', (quantized or reached)[0]
        reason = held_back[name]
        why = 'has these quantizers without it; drop it'
        if reason:
            why = f'stays in float as {reason!r}; {_REMEDIES[reason]}, or set `{key}` to None'
        raise ValueError(f'`{key}` can have no effect: `{name}`{_others(reached)} {why}')


def _check_overrides(
    config: QuantizationConfig, places: Mapping[str, Sequence[str]], held_back: Mapping[str, str]
) -> None:
    """Refuse an override that changes nothing.

    Args:
        config: The config.
        places: From each layer that can be quantized to its positions.
        held_back: From each layer to the reason why it stays in float, if it does.
    """
    for pattern in config.overrides:
        reached = [name for name in places if matches(name, pattern)]
        quantized = [name for name in reached if not held_back[name]]
        if any(
            config.for_layer(n, places[n]) != config.for_layer(n, places[n], without=pattern)
            for n in quantized
        ):
            continue
        name = (quantized or reached)[0]
        raise ValueError(
            f'`{config.key}.overrides` has the pattern {pattern!r} that can have no effect: '
            f'`{name}`{_others(reached)} '
            f'{_why_without_effect(config, pattern, name, held_back[name])}'
        )


def _others(reached: Sequence[str]) -> str:
    return f' (and {len(reached) - 1} more)' if len(reached) > 1 else ''


def _why_without_effect(config: QuantizationConfig, pattern: str, name: str, reason: str) -> str:
    if reason:
        return f'stays in float as {reason!r}; {_REMEDIES[reason]}, or drop the override'
    later = list(config.overrides)[list(config.overrides).index(pattern) + 1 :]
    hiding = [other for other in later if matches(name, other)]
    if hiding:
        return (
            f'takes its quantizers from {hiding[-1]!r}, which comes later; put the more special '
            'pattern last, or drop the override'
        )
    return 'has these quantizers without it; drop the override'

"""Which layers give a model's predictions: its "last" layers, of which a detector has several."""

from collections.abc import Iterator, Sequence

from mmcv.cnn import ConvModule
from torch import nn


def prediction_layers(model: nn.Module, names: Sequence[str]) -> set[str]:
    """Find the last layers of a model without running it.

    The predictions of MMDetection and MMPretrain come from the bare layers of a head, alone, in
    lists, or at the end of a sequence. Layers in other modules of the head (ConvModules,
    attention, feed-forward networks) or in lists called ``*_fcs``, and the RPN's ``rpn_conv``, are
    hidden. If nothing is left of a head, all its layers outside of ConvModules count; a model
    without a head has one last layer.

    Args:
        model: The float model.
        names: Names of its convolutions and fully connected layers, in the order of registration.

    Returns:
        set[str]: The names of the last layers.
    """
    layers = {model.get_submodule(name): name for name in names}
    found = set()
    for name, head in model.named_children():
        if 'head' in name:
            found |= set(_last_layers(head, layers)) or set(_bare_layers(head, layers))
    return found or set(names[-1:])


def _last_layers(module: nn.Module, layers: dict[nn.Module, str]) -> Iterator[str]:
    children = [
        (name, child)
        for name, child in module.named_children()
        if any(layer in layers for layer in child.modules())
    ]
    if isinstance(module, nn.Sequential):
        children = children[-1:]
    for name, child in children:
        if child in layers:
            if name != 'rpn_conv':
                yield layers[child]
        elif type(child).__name__ == 'MLP':  # of MMDetection: `layers` one after the other
            yield from _last_layers(
                nn.Sequential(*child.get_submodule('layers').children()), layers
            )
        elif _holds_predictions(name, child):
            yield from _last_layers(child, layers)


def _holds_predictions(name: str, module: nn.Module) -> bool:
    containers = nn.Sequential | nn.ModuleList | nn.ModuleDict
    is_head = 'head' in name or type(module).__name__.endswith('Head')
    return (isinstance(module, containers) and not name.endswith('_fcs')) or is_head


def _bare_layers(head: nn.Module, layers: dict[nn.Module, str]) -> Iterator[str]:
    hidden = {layer for m in head.modules() if isinstance(m, ConvModule) for layer in m.children()}
    return (layers[m] for m in head.modules() if m in layers and m not in hidden)

"""Which layers give a model's predictions: its "last" layers, of which a detector has several."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from torch import nn


def prediction_layers(model: nn.Module, names: Sequence[str]) -> set[str]:
    """Finds the last layers of a model without running it.

    In the heads of MMDetection and MMPretrain the hidden layers are ConvModules, lie in lists
    called ``*_fcs``, or are the RPN's ``rpn_conv``; the other bare ones predict. A model without
    a head has one last layer.

    Args:
        model: The float model.
        names: Names of its convolutions and fully connected layers, in the order of registration.

    Returns:
        set[str]: The names of the last layers.
    """
    found = {name for name in names if _predicts(model, name)}
    return found or set(names[-1:])


def _predicts(model: nn.Module, name: str) -> bool:
    top, *inner = name.split('.')
    hidden = any(part.endswith('_fcs') or part == 'rpn_conv' for part in inner)
    parent = model.get_submodule('.'.join([top, *inner][:-1]))
    return 'head' in top and not hidden and not isinstance(parent, ConvModule)

"""The module that is exported: a model from pixels to what a user of the file receives."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmqnet.export.metadata import FileMetadata
from mmqnet.quantizers import quantizers_of


class ExportModule(nn.Module):
    """A model in evaluation with its preprocessing in front.

    Args:
        model: The model; its layers are found below ``model.``.
        metadata: What the file says about itself.

    Attributes:
        output_names: Of the file's outputs, in order.
        file: The metadata as values.
        translation_table: ONNX functions of the operators that it needs beside torch's.
    """

    output_names: tuple[str, ...] = ()
    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, metadata: FileMetadata) -> None:
        super().__init__()
        self.model: Any = model
        self.file = metadata.with_changes(
            layers=bits_of_layers(model), torch_version=torch.__version__
        )
        preprocessor = getattr(model, 'data_preprocessor', None)
        self._flips = not getattr(preprocessor, '_channel_conversion', False)
        mean, std = channel_statistics(preprocessor)
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def metadata(self) -> dict[str, str]:
        """The strings for ``metadata_props``."""
        return self.file.to_strings()

    @property
    def translation_table(self) -> dict[Any, Callable]:
        """ONNX functions of operators that are not torch's."""
        return {}

    def example(self, batch: int = 2) -> Tensor:
        """Return an input (batch, 3, H, W); two images, since torch.export fixes a size of one."""
        return torch.zeros(batch, 3, *self.file.input_size)

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of ``output_names``."""
        return self.predict(self.prepare(input))

    def prepare(self, input: Tensor) -> Tensor:
        """Return the network's input: in its order of channels, normalized."""
        if self.file.normalize == 'outside':
            return input
        x = input.flip(1) if self._flips else input
        return (x - self.mean) / self.std

    def predict(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for a normalized input (N, 3, H, W)."""
        raise NotImplementedError


def channel_statistics(preprocessor: Any) -> tuple[list[float], list[float]]:
    """Return mean and std of the three channels in the network's order.

    Raises:
        ValueError: If there is neither one value nor three.
    """
    mean, std = getattr(preprocessor, 'mean', None), getattr(preprocessor, 'std', None)
    if mean is None or std is None:
        return [0.0] * 3, [1.0] * 3
    if mean.numel() not in (1, 3):
        raise ValueError(
            f'`data_preprocessor.mean` should have 1 or 3 values, but got {mean.flatten().tolist()}'
        )
    mean, std = (_decimals(values.flatten().expand(3)) for values in (mean, std))
    return mean, std


def _decimals(values: Tensor) -> list[float]:
    """Return float32 numbers as they were written in a config: 123.675 and not 123.67500305."""
    return [float(f'{value:.7g}') for value in values.tolist()]


def bits_of_layers(model: nn.Module) -> dict[str, dict[str, int]]:
    """Return the bits of each layer's and block's quantizers.

    Example:
        >>> from mmqnet.layers import QuantConv2d
        >>> conv = QuantConv2d(3, 8, 3, weight_quantizer=dict(levels='pm4'))
        >>> bits_of_layers(nn.Sequential(conv))
        {'0': {'weight': 3}}
    """
    layers: dict[str, dict[str, int]] = {}
    for name, quantizer in quantizers_of(model).items():
        owner, _, role = name.rpartition('.')
        layers.setdefault(owner, {})[role.removesuffix('_quantizer')] = quantizer.num_bits
    return layers

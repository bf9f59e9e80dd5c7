"""What all quantized layers share: two quantizers and the weights of an evaluation."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from typing_extensions import Self

from mmqnet.layers.owning import add_quantizer
from mmqnet.layers.projection import weight_parameter
from mmqnet.layers.weight_cache import WeightCache
from mmqnet.quantizers import Quantizer, QuantizerConfig


class QuantizedLayer(nn.Module):
    """Mixin for a subclass of a float layer: quantizes its input and its weights.

    The float layer's parameters keep their names; the quantizers only add checkpoint keys.

    Args:
        *args: As for the float layer.
        weight_quantizer (dict, optional): Config of the weights' quantizer, see
            :class:`QuantizerConfig`. Default None, for float weights.
        input_quantizer (dict, optional): The same for the input. Default None, for a float input.
        **kwargs: As for the float layer.

    Attributes:
        channel_axis (int): Dimension of the weights that counts the output channels.
        weight_quantizer (Quantizer or None): Quantizer of the weights; None leaves them in float.
        input_quantizer (Quantizer or None): Quantizer of the input; None leaves it in float, or
            as the residual block has quantized it.
    """

    channel_axis: ClassVar[int] = 0

    weight: Any  # the float layer's own parameters
    bias: Any
    weight_quantizer: Quantizer | None
    input_quantizer: Quantizer | None

    def __init__(
        self,
        *args: Any,
        weight_quantizer: dict[str, Any] | None = None,
        input_quantizer: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.add_quantizers(weight_quantizer, input_quantizer)

    def add_quantizers(
        self,
        weight_quantizer: QuantizerConfig | dict[str, Any] | Quantizer | None,
        input_quantizer: QuantizerConfig | dict[str, Any] | Quantizer | None,
    ) -> None:
        """Make the quantizers, or take those that layers share, see :func:`add_quantizer`."""
        self._weight_cache = WeightCache()
        parameter, shape = weight_parameter(self), [1] * self.weight.dim()
        shape[self.channel_axis] = self.weight.shape[self.channel_axis]
        add_quantizer(self, 'weight_quantizer', weight_quantizer, parameter, shape)
        add_quantizer(self, 'input_quantizer', input_quantizer, parameter)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a bias for a layer that has been made without: a normalization's, which is fused.

        Raises:
            RuntimeError: If the layer's weights are quantized.
        """
        if name == 'bias' and value is not None and self._quantizes_without_bias():
            raise RuntimeError(
                'a normalization should not be fused into a layer with quantized weights: its '
                'factors would be quantized with the scales of other weights, and the results be '
                'wrong; leave `--fuse-conv-bn` or `fuse_conv_bn()` out, and load the model again'
            )
        super().__setattr__(name, value)

    def _quantizes_without_bias(self) -> bool:
        made = 'bias' in self.__dict__.get('_parameters', {})
        return made and self.bias is None and self.weight_quantizer is not None

    @classmethod
    def from_float(
        cls,
        layer: nn.Module,
        weight_quantizer: QuantizerConfig | Quantizer | None = None,
        input_quantizer: QuantizerConfig | Quantizer | None = None,
    ) -> Self:
        """Make the quantized layer of a float layer, around the very same parameters.

        Args:
            layer: The float layer; it should not be used on its own any more.
            weight_quantizer: Config of the weights' quantizer, or the one that all layers share;
                None for float weights.
            input_quantizer: The same for the input.
        """
        quantized = cls.__new__(cls)
        nn.Module.__init__(quantized)
        quantized.__dict__.update(layer.__dict__)
        # own dictionaries: what is added here must not appear in the float layer
        for name in ('_parameters', '_buffers', '_modules'):
            quantized.__dict__[name] = dict(layer.__dict__[name])
        quantized.add_quantizers(weight_quantizer, input_quantizer)
        return quantized

    def effective_weight(self) -> Tensor:
        """Return the weights as the float layer uses them."""
        return self.weight

    def quantized_weight(self) -> Tensor:
        """Return the weights as the layer uses them: soft, hard or float.

        In evaluation they are computed once, and again when one of their sources is written to.
        """
        quantizer = self.weight_quantizer
        if quantizer is None:
            return self.effective_weight()
        # a layer of a frozen stage evaluates, while the quantizer that all layers share may learn
        learning = self.training or quantizer.training or torch.is_grad_enabled()
        changing = quantizer.observer is not None or is_parametrized(self)
        if learning or changing or torch.compiler.is_compiling():
            return quantizer(self.effective_weight())
        sources = [
            weight_parameter(self),
            *self._parameters.values(),
            *self._buffers.values(),
            *quantizer._parameters.values(),
            *quantizer._buffers.values(),
        ]
        return self._weight_cache.get(
            [tensor for tensor in sources if tensor is not None],
            (quantizer.evaluate_soft, torch.is_autocast_enabled(self.weight.device.type)),
            lambda: quantizer(self.effective_weight()),
        )

    def quantized_input(self, x: Tensor) -> Tensor:
        """Return the input as the layer uses it."""
        return x if self.input_quantizer is None else self.input_quantizer(x)

    def train(self, mode: bool = True) -> Self:
        """Set to training or evaluation, and forget the weights of the last evaluation."""
        self._weight_cache.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._weight_cache.clear()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._weight_cache.clear()
        super()._load_from_state_dict(*args)

"""What all quantized layers share: two quantizers and the weights of an evaluation."""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from mmqnet.layers.weight_cache import WeightCache
from mmqnet.quantizers import ActivationQuantizerConfig, Quantizer, WeightQuantizerConfig


class QuantizedLayer(nn.Module):
    """Mixin for a subclass of a float layer: quantizes its input and its weights.

    The float layer's parameters keep their names; the quantizers only add checkpoint keys.

    Args:
        *args: As for the float layer.
        weight_quantizer (dict, optional): Config of the weights' quantizer, see
            :class:`WeightQuantizerConfig`. Default None, for float weights.
        input_quantizer (dict, optional): Config of the input's quantizer, see
            :class:`ActivationQuantizerConfig`. Default None, for a float input.
        **kwargs: As for the float layer.

    Attributes:
        weight_quantizer (Quantizer or None): Quantizer of the weights; None leaves them in float.
        input_quantizer (Quantizer or None): Quantizer of the input; None leaves it in float, or
            as the residual block has quantized it.
    """

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
        weight_quantizer: WeightQuantizerConfig | dict[str, Any] | None,
        input_quantizer: ActivationQuantizerConfig | dict[str, Any] | None,
    ) -> None:
        """Makes the quantizers; their parameters are trained only if the weights are."""
        self.weight_quantizer = self.input_quantizer = None
        if weight_quantizer is not None:
            self.weight_quantizer = build_weight_quantizer(weight_quantizer, self.weight)
        if input_quantizer is not None:
            self.input_quantizer = build_input_quantizer(input_quantizer, self.weight)
        self._weight_cache = WeightCache()

    @classmethod
    def from_float(
        cls,
        layer: nn.Module,
        weight_quantizer: WeightQuantizerConfig | None = None,
        input_quantizer: ActivationQuantizerConfig | None = None,
    ) -> Self:
        """Makes the quantized layer of a float layer, around the very same parameters.

        Args:
            layer: The float layer; it should not be used on its own any more.
            weight_quantizer: Config of the weights' quantizer, None for float weights.
            input_quantizer: Config of the input's quantizer, None for a float input.
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
        """The weights as the float layer uses them."""
        return self.weight

    def quantized_weight(self) -> Tensor:
        """The weights as the layer uses them: soft, hard or float.

        In evaluation they are computed once, and again whenever their sources have changed.
        """
        quantizer = self.weight_quantizer
        if quantizer is None:
            return self.effective_weight()
        if self.training:
            self._weight_cache.clear()  # it holds two more copies of the weights
        if self.training or torch.is_grad_enabled() or quantizer.observer is not None:
            return quantizer(self.effective_weight())
        own = (*self.parameters(recurse=False), *self.buffers(recurse=False))
        sources = [tensor for tensor in own if tensor is not self.bias]
        return self._weight_cache.get(
            [*sources, *quantizer.learned_state()],
            quantizer.state,
            lambda: quantizer(self.effective_weight()),
        )

    def quantized_input(self, x: Tensor) -> Tensor:
        """The input as the layer uses it."""
        return x if self.input_quantizer is None else self.input_quantizer(x)


def build_weight_quantizer(
    config: WeightQuantizerConfig | dict[str, Any], weight: nn.Parameter
) -> Quantizer:
    """Makes the quantizer of ``weight`` (output channels first)."""
    if isinstance(config, dict):
        config = WeightQuantizerConfig.from_dict(config, 'weight_quantizer')
    per_channel = config.granularity == 'channel'
    shape = (weight.shape[0], *(1,) * (weight.dim() - 1)) if per_channel else ()
    return _place(Quantizer(config, shape), weight)


def build_input_quantizer(
    config: ActivationQuantizerConfig | dict[str, Any], weight: nn.Parameter
) -> Quantizer:
    """Makes the quantizer of the input of the layer that owns ``weight``."""
    if isinstance(config, dict):
        config = ActivationQuantizerConfig.from_dict(config, 'input_quantizer')
    return _place(Quantizer(config), weight)


def _place(quantizer: Quantizer, weight: nn.Parameter) -> Quantizer:
    """Same device as the weights, and frozen with them.

    A backbone freezes its ``frozen_stages`` at construction and at each ``train()``: a parameter
    that turned frozen after DistributedDataParallel has seen it would be waited for in vain.
    """
    return quantizer.to(weight.device).requires_grad_(weight.requires_grad)

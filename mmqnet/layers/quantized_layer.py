"""What all quantized layers share: two quantizers and the weights of an evaluation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from mmqnet.layers.weight_cache import WeightCache
from mmqnet.quantizers import (
    ActivationQuantizerConfig,
    Quantizer,
    QuantizerConfig,
    WeightQuantizerConfig,
)


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
        weight_quantizer: WeightQuantizerConfig | dict[str, Any] | Quantizer | None,
        input_quantizer: ActivationQuantizerConfig | dict[str, Any] | Quantizer | None,
    ) -> None:
        """Makes the quantizers, or takes those that all layers of the model share.

        Their parameters are trained only if the weights are.
        """
        self.weight_quantizer = self.input_quantizer = None
        if weight_quantizer is not None:
            if not isinstance(weight_quantizer, Quantizer):
                weight_quantizer = build_weight_quantizer(weight_quantizer, self.weight)
            hold_quantizer(self, 'weight_quantizer', weight_quantizer)
        if input_quantizer is not None:
            if not isinstance(input_quantizer, Quantizer):
                input_quantizer = build_input_quantizer(input_quantizer, self.weight)
            hold_quantizer(self, 'input_quantizer', input_quantizer)
        self._weight_cache = WeightCache()

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses a bias for a layer that has been made without: a normalization's, which is fused.

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
        weight_quantizer: WeightQuantizerConfig | Quantizer | None = None,
        input_quantizer: ActivationQuantizerConfig | Quantizer | None = None,
    ) -> Self:
        """Makes the quantized layer of a float layer, around the very same parameters.

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
            self._weight_cache.clear()  # it holds another copy of the weights
        # a layer of a frozen stage evaluates, while the quantizer that all layers share may learn
        learning = self.training or quantizer.training
        if learning or torch.is_grad_enabled() or quantizer.observer is not None:
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
    _refuse_sharing(config, 'weight_quantizer')
    per_channel = config.granularity == 'channel'
    shape = (weight.shape[0], *(1,) * (weight.dim() - 1)) if per_channel else ()
    return _place(Quantizer(config, shape), [weight])


def build_input_quantizer(
    config: ActivationQuantizerConfig | dict[str, Any], weight: nn.Parameter
) -> Quantizer:
    """Makes the quantizer of the input of the layer that owns ``weight``."""
    if isinstance(config, dict):
        config = ActivationQuantizerConfig.from_dict(config, 'input_quantizer')
    _refuse_sharing(config, 'input_quantizer')
    return _place(Quantizer(config), [weight])


def build_shared_quantizer(config: QuantizerConfig, weights: Sequence[nn.Parameter]) -> Quantizer:
    """Makes the quantizer that all layers which own ``weights`` share."""
    return _place(Quantizer(config), weights)


def hold_quantizer(module: nn.Module, name: str, quantizer: Quantizer) -> None:
    """Makes a quantizer an attribute of a layer or block.

    It becomes a part of it, unless all layers share it: then it is a part of the model alone. So it
    stands in checkpoints, optimizers and averages once, and a frozen stage, which puts its parts
    into evaluation mode, leaves it alone.
    """
    if quantizer.config.is_shared:
        module.__dict__[name] = quantizer
    else:
        setattr(module, name, quantizer)


def _refuse_sharing(config: QuantizerConfig, key: str) -> None:
    if config.is_shared:
        raise ValueError(
            f"`{key}.granularity` should not be 'model' for a single layer: "
            "'mmqnet.QuantizedModel' makes the functions that layers share"
        )


def _place(quantizer: Quantizer, weights: Sequence[nn.Parameter]) -> Quantizer:
    """Same device as the weights, and frozen with them, if all of them are.

    A backbone freezes its ``frozen_stages`` at construction and at each ``train()``: a parameter
    that turned frozen after DistributedDataParallel has seen it would be waited for in vain.
    """
    learns = any(weight.requires_grad for weight in weights)
    return quantizer.to(weights[0].device).requires_grad_(learns)

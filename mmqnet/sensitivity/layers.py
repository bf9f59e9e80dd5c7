"""Which layers of a converted model have a choice of bits, and what their bits cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmqnet.calibration import run_model
from mmqnet.layers import QuantizedLayer
from mmqnet.models import LayerReport, QuantizationConfig, QuantizationReport
from mmqnet.quantizers import Quantizer, QuantizerConfig
from mmqnet.sensitivity.choices import FLOAT_BITS, Choice


@dataclass(frozen=True)
class Layer:
    """A quantized layer.

    Attributes:
        name: Dotted module name.
        num_weights: Number of weights.
        num_products: Multiplications for one picture, of the size that the first sample has.
        weight_bits: Bits of its weights by the config; 32 for float.
        activation_bits: Bits of its input by the config.
        weight_quantizer: Name of the quantizer of its weights; empty if they have no choice.
        input_quantizer: The same of its input, its own or that of a residual block, which several
            layers read.
    """

    name: str
    num_weights: int
    num_products: int
    weight_bits: int
    activation_bits: int
    weight_quantizer: str
    input_quantizer: str

    def quantizer(self, role: str) -> str:
        """Return the name of the quantizer of its ``'weight'`` or ``'activation'``."""
        return self.weight_quantizer if role == 'weight' else self.input_quantizer

    def with_own_bits(self, choice: Choice) -> Choice:
        """Return a choice with the layer's own bits where it has no choice."""
        return Choice(
            choice.weight_bits if self.weight_quantizer else self.weight_bits,
            choice.activation_bits if self.input_quantizer else self.activation_bits,
        )


def layers_of(
    model: nn.Module, config: QuantizationConfig, products: dict[str, int]
) -> list[Layer]:
    """Return the quantized layers, in the order of ``products``.

    Layers with the common ``weight`` and ``activation`` of the config have a choice. What
    ``first``, ``last`` or ``overrides`` say of a layer stays, and so does an input that it reads
    with others.

    Args:
        model: The converted model.
        config: What it was converted with.
        products: From the layers to their multiplications for one picture, as
            :func:`count_products` gives them: in the order in which a picture passes the layers.
    """
    names = {module: name for name, module in model.named_modules()}
    report: QuantizationReport = model.quantization_report  # type: ignore[assignment]
    order = {name: place for place, name in enumerate(products)}
    entries = sorted(report.quantized, key=lambda entry: order[entry.name])
    pairs = {entry.name: _quantizers(model, entry) for entry in entries}
    common = (config.weight, config.activation)
    special = {name for name, pair in pairs.items() if tuple(map(_config, pair)) != common}
    stays = {inputs for name, (_, inputs) in pairs.items() if name in special}
    found = []
    for entry in entries:
        weights, inputs = pairs[entry.name]
        has_choice = entry.name not in special
        found.append(
            Layer(
                name=entry.name,
                num_weights=entry.num_weights,
                num_products=products[entry.name],
                weight_bits=_bits(weights),
                activation_bits=_bits(inputs),
                weight_quantizer=names[weights] if weights and has_choice else '',
                input_quantizer=names[inputs] if inputs and inputs not in stays else '',
            )
        )
    return found


def _quantizers(model: nn.Module, entry: LayerReport) -> tuple[Quantizer | None, Quantizer | None]:
    """Return the quantizers of a layer's weights and of its input."""
    layer = model.get_submodule(entry.name)
    assert isinstance(layer, QuantizedLayer)
    inputs = _input_quantizer(model, entry.name) if entry.activation != 'float' else None
    return layer.weight_quantizer, inputs


def _input_quantizer(model: nn.Module, name: str) -> Quantizer | None:
    """Return the quantizer of a layer's input: its own, or that of a block around it."""
    while True:
        quantizer = getattr(model.get_submodule(name), 'input_quantizer', None)
        if quantizer is not None or not name:
            return quantizer
        name = name.rpartition('.')[0]


def _bits(quantizer: Quantizer | None) -> int:
    return FLOAT_BITS if quantizer is None else quantizer.num_bits


def _config(quantizer: Quantizer | None) -> QuantizerConfig | None:
    return None if quantizer is None else quantizer.config


@torch.no_grad()
def count_products(model: nn.Module, batch: Any) -> dict[str, int]:
    """Count the multiplications of the quantized layers for a batch of one picture.

    Args:
        model: The converted model, calibrated or in float.
        batch: The picture, as a data loader gives it.

    Returns:
        dict: By the names of the layers, over all their calls; in the order of the first of them,
        and those without one at the end.
    """
    found: dict[str, int] = {}
    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, QuantizedLayer)}
    handles = [layer.register_forward_hook(_counter(found, n)) for n, layer in layers.items()]
    try:
        run_model(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found | {name: 0 for name in layers if name not in found}


def _counter(found: dict[str, int], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    def count(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, QuantizedLayer)
        weight = layer.effective_weight()
        # a value of the output takes the weights of its channel, or gets them if transposed
        values = args[0] if getattr(layer, 'transposed', False) else output
        found[name] = found.get(name, 0) + values.numel() * (weight.numel() // len(weight))

    return count

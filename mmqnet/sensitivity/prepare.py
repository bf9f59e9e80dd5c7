"""What both ways of measuring start with: samples, quantizers of other bits, an empty record."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from mmqnet.calibration import batch_of, collect_on_samples
from mmqnet.models import QuantizationConfig
from mmqnet.quantizers import quantizers_of
from mmqnet.sensitivity.alternatives import Alternatives, check_choices, fit_alternatives
from mmqnet.sensitivity.choices import Choice
from mmqnet.sensitivity.direct import quantizers_off
from mmqnet.sensitivity.layers import count_products, layers_of
from mmqnet.sensitivity.record import Sensitivities


def prepare(
    model: nn.Module,
    quantization: Mapping[str, Any],
    choices: Sequence[Choice],
    train: DataLoader[Any],
    settings: Mapping[str, Any],
) -> tuple[Sensitivities, Alternatives]:
    """Fit quantizers of all choices, and return them with a record that is yet to be filled.

    Args:
        model: The converted model with the weights of the float one, not wrapped.
        quantization: The dict of the config file that it was converted with.
        choices: Choices of bits.
        train: The training's data loader.
        settings: ``method``, ``measure``, ``num_samples``, ``seed``, and how many
            ``calibration_samples`` the activations' quantizers are fitted to, and whatever else a
            measurement that goes on should have in common.

    Raises:
        ValueError: If the config or its methods do not allow a choice, no layer has one, or no
            choice fits a layer.
    """
    config = QuantizationConfig.from_dict(quantization)
    check_choices(choices, config, quantization)
    with quantizers_off(model):
        products = count_products(model, batch_of(train, [0], settings['seed']))
    layers = layers_of(model, config, products)
    samples = collect_on_samples(model, train, settings['calibration_samples'], settings['seed'])
    alternatives = fit_alternatives(model, layers, quantization, choices, samples)
    errors: dict[str, dict[int, float | None]] = {
        name: dict.fromkeys(others) for name, others in alternatives.items()
    }
    if not any(errors.values()):
        raise ValueError(
            f'no layer has a choice of bits among {", ".join(map(str, choices))}: `first`, `last` '
            'and `overrides` of `quantization` say what those that they name get'
        )
    everything = dict(settings, quantization=as_text(quantization), weights=_digest(model))
    record = Sensitivities(everything, list(choices), layers, errors)
    for layer in layers:
        record.choices_of(layer)  # an allocation would refuse it after all the work
    return record, alternatives


def as_text(quantization: Mapping[str, Any]) -> str:
    """Return the dict of a config file as text, to be compared."""
    return json.dumps(quantization, sort_keys=True, default=str)


@torch.no_grad()
def _digest(model: nn.Module) -> str:
    """Return what tells the weights of one checkpoint from those of another."""
    digest = hashlib.sha256()
    of_quantizers = {id(b) for q in quantizers_of(model).values() for b in q.buffers()}
    statistics = (b for b in model.buffers() if id(b) not in of_quantizers and b.dim())
    for tensor in (*model.parameters(), *statistics):
        digest.update(tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]

"""Packed checkpoint: quantized weights as codes at their bits, everything else as it is."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmqnet import __version__
from mmqnet.atomic import replacing
from mmqnet.export.packed_file import save, share_storage, tensor_key
from mmqnet.export.tables import render
from mmqnet.layers import QuantizedLayer, weight_parameter, weight_rows
from mmqnet.models import ENTRY, expand_layer, packed_entry, unpack
from mmqnet.ops import pack_codes
from mmqnet.quantizers import Staircase

_MOST_BITS = 8


@dataclass(frozen=True)
class PackedLayer:
    """One layer with a quantizer of its weights.

    Attributes:
        name: Dotted module name.
        num_weights: Number of weights.
        bits: Bits that one weight takes in the file.
        reason: Why its weights are stored in float; empty if they are packed.
    """

    name: str
    num_weights: int
    bits: int
    reason: str


@dataclass(frozen=True)
class PackedReport:
    """What a packed checkpoint holds.

    Attributes:
        layers: The layers with a quantizer of their weights.
        file_bytes: Size of the file.
        ideal_bytes: Packed weights at their bits, and the bytes of all other weights and buffers.
    """

    layers: tuple[PackedLayer, ...]
    file_bytes: int
    ideal_bytes: float

    def table(self) -> str:
        """Return the report as text."""
        rows = [(x.name, f'{x.num_weights:,}', str(x.bits), x.reason) for x in self.layers]
        packed = sum(not layer.reason for layer in self.layers)
        note = (
            f'{self.file_bytes / 2**20:.2f} MiB, {self.file_bytes / self.ideal_bytes:.3f} of the '
            f'ideal; weights of {packed} layers of {len(self.layers)} packed'
        )
        return render('Layers', ('layer', 'weights', 'bits', 'in float as'), rows, [note])

    def as_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=2)


def write_packed(
    model: nn.Module,
    config: Config,
    path: str | Path,
    dataset_meta: Mapping[str, Any] | None = None,
) -> PackedReport:
    """Write a checkpoint whose quantized weights are packed.

    On the same config it loads wherever a checkpoint of MMEngine does, and evaluates bit by bit as
    the model does. It holds tensors, dicts, lists, strings and numbers only. A layer is stored in
    float if its weights cannot be found again from their codes: the report says why.

    Args:
        model: The quantized model, calibrated.
        config: Its config, which is stored in the file.
        path: The file, written atomically.
        dataset_meta: Class names and the rest of the data set's ``metainfo``, for
            ``init_detector`` and ``DetInferencer``. Default None.

    Raises:
        OSError: If the file cannot be written.
        RuntimeError: If the model has not been calibrated.
    """
    state, layers = _pack(model)
    packed = sum(layer.num_weights * layer.bits / 8 for layer in layers if not layer.reason)
    ideal = packed + _bytes_of(state.values())
    meta = dict(
        cfg=config.pretty_text,
        dataset_meta=_plain(dict(dataset_meta or {})),
        mmengine_version=mmengine.__version__,
        mmqnet_version=__version__,
    )
    with replacing(path) as part:
        save(dict(meta=meta, state_dict=share_storage(state)), part)
        unpack(torch.load(part, weights_only=True)['state_dict'])  # compares the checksums
    return PackedReport(layers, Path(path).stat().st_size, ideal)


def _pack(model: nn.Module) -> tuple[dict[str, Any], tuple[PackedLayer, ...]]:
    """Return the state of a model with its weights packed, and what became of each layer."""
    state, packed, layers = model.state_dict(), {}, []
    found = [(names, layer, *_pack_layer(layer)) for names, layer in _quantized_layers(model)]
    rows = Counter[nn.Parameter]()
    for _, layer, entry, _ in found:
        rows[weight_parameter(layer)] += len(layer.weight) if entry else 0
    for names, layer, entry, reason in found:
        bits, parameter = 8 * layer.weight.element_size(), weight_parameter(layer)
        if entry and rows[parameter] < len(parameter):
            entry, reason = None, 'other rows of the same parameter are stored in float'
        if entry:
            bits = entry['bits']
            for name in names:
                key, first_row = weight_rows(layer, name)
                state.pop(key, None)
                place = {} if key == f'{name}.weight' else dict(parameter=key, first_row=first_row)
                packed[name] = {**entry, **place}
        layers.append(PackedLayer(names[0], layer.weight.numel(), bits, reason))
    state[ENTRY] = packed_entry(packed, state)
    return state, tuple(layers)


def _quantized_layers(model: nn.Module) -> Iterator[tuple[list[str], QuantizedLayer]]:
    """Yield the layers with a quantizer of their weights, and all names of each."""
    names: dict[QuantizedLayer, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, QuantizedLayer) and module.weight_quantizer is not None:
            names.setdefault(module, []).append(name)
    for layer, found in names.items():
        yield found, layer


@torch.no_grad()
def _pack_layer(layer: QuantizedLayer) -> tuple[dict[str, Any] | None, str]:
    """Return a layer's entry in the file; or None, and why its weights stay in float."""
    quantizer, weight = layer.weight_quantizer, layer.weight
    assert quantizer is not None
    reason = _obstacle(layer)
    if reason:
        return None, reason
    codes, staircase = quantizer.codes(weight), quantizer.staircase(weight)
    expected = staircase.quantize(weight)
    packed = dict(
        shape=list(weight.shape),
        bits=quantizer.num_bits,
        codes=pack_codes(codes, quantizer.num_bits),
    )
    axis = layer.channel_axis
    for values, scale in _representatives(staircase):
        by_channel = scale.dim() > axis and scale.shape[axis] == weight.shape[axis]
        if scale.numel() != (weight.shape[axis] if by_channel else 1):
            continue  # neither one for the layer nor one for each output channel
        factors = scale if by_channel and axis else scale.flatten()
        entry = dict(packed, values=values, factors=factors)
        found = expand_layer(entry)
        if torch.equal(quantizer.staircase(found).quantize(found), expected):
            return entry, ''
    return None, 'its quantizer gives other values to weights made from its codes'


def _obstacle(layer: QuantizedLayer) -> str:
    quantizer, weight = layer.weight_quantizer, layer.weight
    assert quantizer is not None
    if not quantizer.is_active:
        return 'its quantizer is off'
    if type(layer).effective_weight is not QuantizedLayer.effective_weight:
        return 'it standardizes its weights before it quantizes them'
    if quantizer.num_bits > _MOST_BITS:
        return f'it has more than {2**_MOST_BITS} levels'
    if weight.dtype is not torch.float32:
        return f'its weights are of {weight.dtype}'
    return ''


def _representatives(staircase: Staircase) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield values (n + 1,) and factors whose products may stand for the weights of each level.

    First what the weights are quantized to; the training may have moved that out of its own
    interval. Then the same with the inner levels moved by their last bit: where the scale is fitted
    to the weights, that makes up for the rounding of the outer ones. Then the middles of the
    intervals between thresholds.
    """
    levels, thresholds = staircase.levels, staircase.thresholds
    yield levels, staircase.alpha
    for sign in (-1, 1):
        moved = levels * (1 + sign * torch.finfo(levels.dtype).eps)
        yield torch.cat([levels[:1], moved[1:-1], levels[-1:]]), staircase.alpha
    margin = (levels[-1:] - levels[:1]) / (len(levels) - 1)
    edges = torch.cat([thresholds[:1] - margin, thresholds, thresholds[-1:] + margin])
    yield (edges[1:] + edges[:-1]) / 2, 1 / staircase.beta


def _bytes_of(values: Iterable[Any]) -> int:
    """Return the bytes of tensors, those with several names once."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    return sum({tensor_key(tensor): tensor.nbytes for tensor in tensors}.values())


def _plain(value: Any) -> Any:
    """Return what a file without classes may hold of a data set's metainfo."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value.tolist() if hasattr(value, 'tolist') else value

"""From an allocation of bits to a config file that inherits the user's."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from pprint import pformat
from typing import Any

from mmengine.config import Config

from mmqnet import atomic
from mmqnet.models import QuantizationConfig, QuantizationReport
from mmqnet.sensitivity.allocation import Allocation
from mmqnet.sensitivity.alternatives import override_of_bits
from mmqnet.sensitivity.choices import ROLES
from mmqnet.sensitivity.layers import Layer
from mmqnet.sensitivity.prepare import as_text
from mmqnet.sensitivity.record import Sensitivities

Overrides = dict[str, dict[str, Any]]


def check_target(path: Path, config: Config) -> None:
    """Check that a file to write is not one that it is to inherit.

    Args:
        path: The file to write.
        config: What it is to inherit, as read from its file.

    Raises:
        ValueError: If it is the file of the config, or one that this inherits.
    """
    # the text of a config has the absolute path of each of its files on a line of its own
    files = [config.filename, *filter(os.path.isabs, config.text.splitlines())]
    if path.exists() and any(os.path.exists(file) and path.samefile(file) for file in files):
        raise ValueError(
            f'--out should be a new file, but {str(path)!r} is the config {config.filename!r} or '
            'one that it inherits: what is written would inherit itself'
        )


def check_model(
    record: Sensitivities, report: QuantizationReport, quantization: Mapping[str, Any]
) -> None:
    """Check that a measurement is of the model of a config.

    Args:
        record: The measurement.
        report: Of the model's conversion.
        quantization: ``model.quantization`` of the config.

    Raises:
        ValueError: If it is of another model, or of one that is quantized in another way.
    """
    measured = {layer.name: layer.num_weights for layer in record.layers}
    own = {layer.name: layer.num_weights for layer in report.quantized}
    for name in {**own, **measured}:
        counts = [of.get(name, 'no') for of in (measured, own)]
        if counts[0] != counts[1]:
            raise ValueError(
                'the sensitivities should be of the model of the config, but '
                f'`{name}` has {counts[0]} quantized weights in them, {counts[1]} in the model'
            )
    if record.settings['quantization'] != as_text(quantization):
        raise ValueError(
            'the sensitivities should be measured with the `model.quantization` of the config, '
            'but theirs is another'
        )


def overrides_of(
    allocation: Allocation, layers: Sequence[Layer], quantization: Mapping[str, Any]
) -> Overrides:
    """Return the ``overrides`` of a config that give each layer its bits.

    Args:
        allocation: The choice of each layer.
        layers: The quantized layers.
        quantization: ``model.quantization`` of the config.

    Returns:
        dict: From layer to what differs from the common ``weight`` and ``activation``.
    """
    config = QuantizationConfig.from_dict(quantization)
    found: Overrides = {}
    for layer in layers:
        for role in ROLES:
            common = getattr(config, role)
            if layer.quantizer(role):
                override = override_of_bits(common, allocation[layer.name].bits(role))
                if override != {}:
                    found.setdefault(layer.name, {})[role] = override
    return found


def write_mixed_config(
    path: Path, base: Path, overrides: Mapping[str, Mapping[str, Any]], comment: str
) -> None:
    """Write a config that inherits another and sets ``model.quantization.overrides``.

    Args:
        path: The file to write, atomically.
        base: The config to inherit.
        overrides: What :func:`overrides_of` gave.
        comment: A line for the top of the file.
    """
    inherited = Path(os.path.relpath(base.resolve(), path.resolve().parent)).as_posix()
    if not inherited.startswith('.'):
        inherited = f'./{inherited}'
    entries = ''.join(
        f'            {name!r}: {pformat(override, width=10_000, sort_dicts=False)},\n'
        for name, override in overrides.items()
    )
    body = f'    quantization=dict(\n        overrides={{\n{entries}        }}\n    )\n'
    atomic.write_text(path, f'# {comment}\n_base_ = {inherited!r}\n\nmodel = dict(\n{body})\n')

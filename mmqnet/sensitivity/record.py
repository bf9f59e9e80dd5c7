"""What has been measured: a file that is whole at every moment, and a table."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from scipy.stats import spearmanr

from mmqnet import atomic
from mmqnet.sensitivity.choices import FLOAT_BITS, ROLES, Choice, parse_choices
from mmqnet.sensitivity.layers import Layer
from mmqnet.tables import as_text

_FORMAT = 'mmqnet sensitivities, 1'
_SETTINGS = ('method', 'measure', 'num_samples', 'quantization')  # that others read


@dataclass
class Sensitivities:
    """What each quantizer of a model costs alone, by its bits.

    Attributes:
        settings: What the figures depend on, in plain values: ``method`` (``'fast'`` or
            ``'direct'``), ``measure`` (``'loss'`` or a metric), ``num_samples`` and more.
        choices: The choices of bits.
        layers: The quantized layers, in the order in which a picture passes them.
        errors: From quantizer and bits to what is lost: a loss rises, or a metric falls, by so
            much. None where it has not been measured yet.
        samples_done: How many samples the figures of the fast estimate are the mean of.
        reference: The measure of the float model; None for the fast estimate.
    """

    settings: dict[str, Any]
    choices: list[Choice]
    layers: list[Layer]
    errors: dict[str, dict[int, float | None]]
    samples_done: int = 0
    reference: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be measured."""
        if self.settings['method'] == 'fast':
            return self.samples_done == self.settings['num_samples']
        return not self.missing()

    def missing(self) -> list[tuple[str, int]]:
        """Return the quantizers and bits that have not been measured yet."""
        return [(n, b) for n, of in self.errors.items() for b, error in of.items() if error is None]

    def add_sample(self, errors: Mapping[str, Mapping[int, float]]) -> None:
        """Take in the errors of one more sample: the figures are means."""
        self.samples_done += 1
        for name, of_bits in errors.items():
            for bits, error in of_bits.items():
                mean = self.errors[name][bits] or 0.0
                self.errors[name][bits] = mean + (error - mean) / self.samples_done

    def error(self, layer: Layer, role: str, bits: int) -> float | None:
        """Return what the ``'weight'`` or the ``'activation'`` of a layer costs at so many bits.

        None where it cannot have them, or has no choice.
        """
        return self.errors.get(layer.quantizer(role), {}).get(bits)

    def choices_of(self, layer: Layer) -> list[Choice]:
        """Return the choices that fit a layer, with its own bits where it has no choice.

        Raises:
            ValueError: If none fits.
        """
        choices = dict.fromkeys(layer.with_own_bits(choice) for choice in self.choices)
        fitting = [choice for choice in choices if self._fits(layer, choice)]
        if not fitting:
            raise ValueError(
                f'no choice of {", ".join(map(str, choices))} fits the layer `{layer.name}`, whose '
                'signed input `signed_levels=None` leaves in float: measure one with '
                f'a{FLOAT_BITS} too'
            )
        return fitting

    def _fits(self, layer: Layer, choice: Choice) -> bool:
        return all(
            not layer.quantizer(role)
            or choice.bits(role) == FLOAT_BITS
            or choice.bits(role) in self.errors.get(layer.quantizer(role), {})
            for role in ROLES
        )

    def quantizers(self, role: str) -> list[str]:
        """Return the quantizers of weights or activations, in the order of the layers."""
        names = dict.fromkeys(layer.quantizer(role) for layer in self.layers)
        return [name for name in names if name in self.errors]

    def bits_of(self, role: str) -> list[int]:
        """Return the numbers of bits of weights or activations, increasing."""
        return sorted({bits for name in self.quantizers(role) for bits in self.errors[name]})

    def rank_correlation(self, other: 'Sensitivities') -> dict[str, float]:
        """Return Spearman's rank correlation with what another way has found for the same model.

        Returns:
            dict[str, float]: ``'all'`` over all quantizers and bits that both have measured, and,
            for example, ``'w4'`` over those of weights with 4 bits, if these are three at least.

        Raises:
            ValueError: If they have nothing in common.
        """
        pairs: dict[str, list[tuple[float, float]]] = {'all': []}
        for role in ROLES:
            for name, bits in ((n, b) for n in self.quantizers(role) for b in self.errors[n]):
                own, others = self.errors[name][bits], other.errors.get(name, {}).get(bits)
                if own is not None and others is not None:
                    pairs['all'].append((own, others))
                    pairs.setdefault(f'{role[0]}{bits}', []).append((own, others))
        if len(pairs['all']) < 3:
            raise ValueError('the files should be of one model and have choices in common')
        enough = {key: values for key, values in sorted(pairs.items()) if len(values) >= 3}
        return {key: float(spearmanr(values).statistic) for key, values in enough.items()}

    @property
    def title(self) -> str:
        """What the figures are, in a line."""
        settings = self.settings
        if settings['method'] == 'fast':
            return f'Fast estimate: rise of the loss, from gradients of {self.samples_done} samples'
        measure = settings['measure']
        change = 'rise of the loss' if measure == 'loss' else f'fall of {measure}'
        return f'Direct: {change}, on {settings["num_samples"]} samples'

    def table(self) -> str:
        """Return the errors as text: a row for each layer, a column for each number of bits."""
        columns = [(role, bits) for role in ROLES for bits in self.bits_of(role)]
        table = Table(title=self.title, title_justify='left')
        table.add_column('layer')
        for heading in ('weights', 'products', *(f'{role[0]}{bits}' for role, bits in columns)):
            table.add_column(heading, justify='right')
        for layer in self.layers:
            errors = [self.error(layer, role, bits) for role, bits in columns]
            cells = ('' if error is None else f'{error:.2g}' for error in errors)
            table.add_row(layer.name, f'{layer.num_weights:,}', f'{layer.num_products:,}', *cells)
        return as_text(table)

    def save(self, path: str | Path) -> None:
        """Write the file atomically."""
        content = dataclasses.asdict(self)
        content.update(format=_FORMAT, complete=self.is_complete)
        content['choices'] = [str(choice) for choice in self.choices]
        atomic.write_text(path, json.dumps(content, indent=1) + '\n')


def load_sensitivities(path: str | Path) -> Sensitivities:
    """Read a file that :meth:`Sensitivities.save` wrote.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is another one, or damaged.
    """
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
        if content['format'] != _FORMAT:
            raise ValueError(f'format {content["format"]!r}')
        _check_content(content)
        return Sensitivities(
            settings=content['settings'],
            choices=parse_choices(content['choices']),
            layers=[Layer(**layer) for layer in content['layers']],
            errors={
                name: {int(bits): error for bits, error in of_bits.items()}
                for name, of_bits in content['errors'].items()
            },
            samples_done=content['samples_done'],
            reference=content['reference'],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{str(path)!r} is no file of tools/sensitivity.py ({type(error).__name__}: {error})'
        ) from error


def _check_content(content: Mapping[str, Any]) -> None:
    """Check the settings and the figures of a file."""
    for key in _SETTINGS:
        if key not in content['settings']:
            raise ValueError(f'`settings.{key}` is missing')
    figures = {
        f'errors.{name}.{b}': e for name, of in content['errors'].items() for b, e in of.items()
    }
    for key, figure in {'reference': content['reference'], **figures}.items():
        if figure is not None and not math.isfinite(figure):
            raise ValueError(f'`{key}` should be a finite number or null, but is {figure}')


def check_same(found: Sensitivities, wanted: Sensitivities, path: str | Path) -> None:
    """Check that a measurement which was stopped can go on.

    Raises:
        ValueError: If it is of another model, or was made with other settings.
    """
    pairs: dict[str, tuple[Any, Any]] = dict(
        choices=(found.choices, wanted.choices),
        layers=(_by_name(found.layers), _by_name(wanted.layers)),
    )
    pairs.update((k, (found.settings.get(k), v)) for k, v in wanted.settings.items())
    different = [name for name, (old, new) in pairs.items() if old != new]
    if different:
        old, new = pairs[different[0]]
        values = f': {old!r} there, {new!r} now' if isinstance(new, int | str) else ''
        raise ValueError(
            f'{str(path)!r} was measured with other `{different[0]}`{values}; name another file '
            'with --out, or delete this one'
        )


def _by_name(layers: Sequence[Layer]) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers}

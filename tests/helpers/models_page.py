"""Writes docs/models.md: what a conversion does to the models of `families.py`."""

import re
from collections import Counter, defaultdict
from pathlib import Path

import families

from mmqnet.models import LayerReport, QuantizationReport

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'models.md'
_MOST_NAMES = 4  # of one reason in one row
_INTRODUCTION = """\
# What is quantized in which model
<!-- written by tests/helpers/models_page.py from families.py: run it again after a change -->

A test converts each of these upstream configs, calibrates it, trains it one step and evaluates it
with hard functions: 3-bit weights, 8-bit activations, the first and last layers in float
(`keep_float`), 3 classes, fewer channels and in some cases fewer layers. The numbers of layers are
those of the small models; `*` stands for numbers in names. The log of your own model has the same,
layer by layer.

Convolutions and fully connected layers of any size are quantized, with groups too: in residual,
inverted and squeeze-and-excitation blocks, in transformers (projections, feed-forward networks), in
necks and in the hidden layers of heads. An input that is seen to be signed at calibration (behind
GELU, SiLU or a layer normalization) gets the zero-centred levels.

What stays in float, and why:

| reason | what it means |
|---|---|
| first layer | `keep_float`; layers that read the image beside it count too |
| last layer | `keep_float`; all layers that predict |
| class X is not supported | deformable, transposed, 1-D, 3-D convolution, `MultiheadAttention` |
| part of a X | X may read its weights itself (`out_proj`) or sample by it (`conv_offset`) |
| multiplies activations | attention has no weights there; its projections are quantized |
| X.forward reads its weights itself | and would pass by the quantizer |
| shares its weights, parametrized, ... | tied, `weight_norm` and lazy layers |

What the code does not show is found at calibration: a quantized layer that the model never calls is
an error that names it. RepVGG and MobileOne are quantized with their branches or, from a merged
float checkpoint and with `deploy=True`, without; `switch_to_deploy()` of a quantized model is
refused.
"""


def page() -> str:
    """Return the text of the page."""
    return '\n'.join(
        [
            _INTRODUCTION,
            '## MMDetection',
            *_table(families.DETECTORS),
            '',
            '## MMPretrain',
            *_table(families.CLASSIFIERS),
            '',
        ]
    )


def _table(chosen: tuple[families.Family, ...]) -> list[str]:
    rows = ['| model | quantized layers | in float |', '|---|---|---|']
    for family in chosen:
        report = families.build(family).quantization_report
        name = f'{family.name}<br>`{family.config}`'
        rows.append(f'| {name} | {_quantized(report)} | {_in_float(report)} |')
    return rows


def _quantized(report: QuantizationReport) -> str:
    """Return the numbers of layers by part and class: ``backbone: 19 Conv2d``."""
    parts: dict[str, Counter[str]] = defaultdict(Counter)
    for layer in report.quantized:
        parts[layer.name.split('.')[0]][layer.kind] += 1
    return '<br>'.join(
        f'{part}: ' + ', '.join(f'{count} {kind}' for kind, count in kinds.items())
        for part, kinds in parts.items()
    )


def _in_float(report: QuantizationReport) -> str:
    """Return the names of the other layers by reason: ``first layer: `backbone.conv1` ``."""
    reasons: dict[str, list[LayerReport]] = defaultdict(list)
    for layer in report.skipped:
        reasons[layer.reason].append(layer)
    return '<br>'.join(f'{reason}: {_names(layers)}' for reason, layers in reasons.items())


def _names(layers: list[LayerReport]) -> str:
    names = Counter(re.sub(r'\d+', '*', layer.name) for layer in layers)
    shown = [
        f'`{name}`' + (f' ({count})' if count > 1 else '')
        for name, count in list(names.items())[:_MOST_NAMES]
    ]
    return ', '.join(shown) + (', ...' if len(names) > _MOST_NAMES else '')


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')

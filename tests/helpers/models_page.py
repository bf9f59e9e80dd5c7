"""Writes docs/models.md: what a conversion does to the models of `families.py`."""

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import families

from mmqnet.models import LayerReport, QuantizationReport

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'models.md'
_MOST_NAMES = 4  # of one reason of one model
_INTRODUCTION = """\
# What is quantized in which model
<!-- written by tests/helpers/models_page.py from families.py: run it again after a change -->

A test converts each of these upstream configs, calibrates it, trains it one step and evaluates it
with hard functions: 3-bit weights, 8-bit activations, the first and last layers in float
(`keep_float`), 3 classes, fewer channels and in some cases fewer layers. The numbers of layers are
those of the small models; `*` stands for numbers in names. The log of your own model has the same,
layer by layer.

Convolutions, transposed convolutions and fully connected layers of any size are quantized, with
groups too: in residual, inverted and squeeze-and-excitation blocks, in transformers (projections,
feed-forward networks), in necks and in the hidden layers of heads. The projections of
`nn.MultiheadAttention` (MMCV's wrapper, as DETR has it) are the layers `q_proj`, `k_proj`, `v_proj`
and `out_proj`; its checkpoint keys stay as they are. An input that is seen to be signed at
calibration (behind GELU, SiLU or a layer normalization) gets levels on both sides of 0, as many on
each as fit it.

What stays in float, and why:

| reason | what it means |
|---|---|
| first layer | `keep_float`; layers that read the image beside it count too |
| last layer | `keep_float`; all layers that predict |
| class X is not supported | deformable, 1-D, 3-D convolutions; subclasses of `MultiheadAttention` |
| part of a X | X may read its weights itself or sample by it (`conv_offset`) |
| products of activations | and softmax, in an attention; its projections are quantized |
| X.forward reads its weights itself | and would pass by the quantizer |
| shares its weights, parametrized, ... | tied, `weight_norm` and lazy layers |

What the code does not show is found at calibration: a quantized layer that the model never calls is
an error that names it. RepVGG and MobileOne are quantized with their branches or, from a merged
float checkpoint and with `deploy=True`, without; `switch_to_deploy()` of a quantized model is
refused.
"""


def page() -> str:
    """Return the text of the page, in lines of at most 100 characters."""
    return '\n'.join(
        [
            _INTRODUCTION,
            '## MMDetection',
            *_entries(families.DETECTORS),
            '',
            '## MMPretrain',
            *_entries(families.CLASSIFIERS),
            '',
        ]
    )


def _entries(chosen: tuple[families.Family, ...]) -> Iterator[str]:
    """Yield the lines of a list: each model with what is quantized, and what is not."""
    for family in chosen:
        report = families.build(family).quantization_report
        yield ''
        yield f'### {family.name}'
        yield f'`{family.config}`'
        yield ''
        yield from _wrapped(f'- quantized: {_quantized(report)}')
        for line in _in_float(report):
            yield from _wrapped(f'- {line}')


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, 100, subsequent_indent='  ', break_long_words=False, break_on_hyphens=False
    )


def _quantized(report: QuantizationReport) -> str:
    """Return the numbers of layers by part and class: ``backbone 19 Conv2d``."""
    parts: dict[str, Counter[str]] = defaultdict(Counter)
    for layer in report.quantized:
        parts[layer.name.split('.')[0]][layer.kind] += 1
    return '; '.join(
        f'{part} ' + ', '.join(f'{count} {kind}' for kind, count in kinds.items())
        for part, kinds in parts.items()
    )


def _in_float(report: QuantizationReport) -> Iterator[str]:
    """Yield the names of the other layers by reason: ``first layer: `backbone.conv1` ``."""
    reasons: dict[str, list[LayerReport]] = defaultdict(list)
    for layer in report.skipped:
        reasons[layer.reason].append(layer)
    for reason, layers in reasons.items():
        yield f'{reason}: {_names(layers)}'


def _names(layers: list[LayerReport]) -> str:
    names = Counter(re.sub(r'\d+', '*', layer.name) for layer in layers)
    shown = [
        f'`{name}`' + (f' ({count})' if count > 1 else '')
        for name, count in list(names.items())[:_MOST_NAMES]
    ]
    return ', '.join(shown) + (', ...' if len(names) > _MOST_NAMES else '')


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')

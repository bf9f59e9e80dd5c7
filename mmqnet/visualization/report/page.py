"""The report of a checkpoint as HTML that needs no other file."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from mmqnet.models.report import LayerReport, QuantizationReport
from mmqnet.visualization.report.facts import QuantizerFacts
from mmqnet.visualization.report.style import SCRIPT, STYLE

_HEADINGS = ('&alpha;', '&beta;', 'below', 'above', 'levels used', 'RMS error')


@dataclass(frozen=True)
class Picture:
    """A picture with its heading and a line about it.

    Attributes:
        title: The heading.
        text: What it shows.
        figure: The picture; None where there is none, which ``text`` explains.
        format: How it is stored: ``'svg'``, or ``'jpg'`` for photographs.
    """

    title: str
    text: str
    figure: Figure | None = None
    format: str = 'svg'


@dataclass(frozen=True)
class Report:
    """What the page is made from.

    Attributes:
        title: Its heading.
        origin: From what it was made: pairs of a name and a value.
        layers: What the conversion did.
        weights: From layer names to the facts about their weights.
        activations: Facts about quantizers of activations; empty without data.
        pictures: What comes behind the tables.
        costs: What quantizers cost alone, at the bits that they have, by their names.
    """

    title: str
    origin: Sequence[tuple[str, str]]
    layers: QuantizationReport
    weights: Mapping[str, QuantizerFacts]
    activations: Mapping[str, QuantizerFacts] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    costs: Mapping[str, float] = field(default_factory=dict)


def report_page(report: Report) -> str:
    """Return the page.

    Example:
        >>> layer = LayerReport('conv', 'Conv2d', '7: -4..4', 'float', '', 72, 3)
        >>> report = Report('demo', [('config', 'a.py')], QuantizationReport((layer,)), {})
        >>> page = report_page(report)
        >>> page.startswith('<!doctype html>'), 'conv' in page
        (True, True)
    """
    sections = [
        f'<h1>{html.escape(report.title)}</h1>',
        _origin(report.origin),
        _summary(report),
        '<h2>Layers</h2>',
        '<p>Weights that are quantized, and the levels of inputs. <i>Below</i> and <i>above</i> '
        'are the shares of the weights beyond the outermost levels (orange in the pictures). '
        'Headings sort; pictures grow under the pointer.</p>',
        _layers_table(report),
        '<h2>Activations</h2>',
        _activations(report.activations, report.costs),
        *(_picture(picture) for picture in report.pictures),
    ]
    body = '\n'.join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(report.title)}</title><style>{STYLE}</style></head>\n'
        f'<body><main>\n{body}\n</main><script>{SCRIPT}</script></body></html>\n'
    )


def _origin(pairs: Iterable[tuple[str, str]]) -> str:
    items = (f'<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>' for k, v in pairs)
    return f'<dl>{"".join(items)}</dl>'


def _summary(report: Report) -> str:
    layers = report.layers
    packed, whole = layers.weight_bytes(), layers.float_weight_bytes()
    cards = [
        (f'{len(layers.quantized)} of {len(layers.layers)}', 'layers quantized'),
        (f'{packed / 2**20:.2f} MiB', f'weights, packed; {whole / 2**20:.2f} MiB in float'),
        (f'{packed / whole:.2f}' if whole else '', 'of the size of the float weights'),
    ]
    if report.weights:
        worst = max(report.weights.values(), key=lambda facts: facts.error)
        cards.append((f'{100 * worst.error:.0f}%', f'largest error of weights: {worst.name}'))
    items = (f'<div><b>{value}</b><span>{html.escape(text)}</span></div>' for value, text in cards)
    return f'<div class="cards">{"".join(items)}</div>'


def _layers_table(report: Report) -> str:
    headings = ['layer', 'function', 'class', 'weights', 'KiB', 'levels', 'bits', 'input levels']
    rows = [
        [
            *_layer_row(layer, report.weights.get(layer.name)),
            *_cost(report.costs, f'{layer.name}.weight_quantizer'),
        ]
        for layer in report.layers.layers
    ]
    return _table([*headings, *_HEADINGS, *_cost_heading(report.costs)], rows)


def _layer_row(layer: LayerReport, facts: QuantizerFacts | None) -> list[str]:
    return [
        _name(layer.name),
        facts.picture if facts else '',
        html.escape(layer.kind),
        f'{layer.num_weights:,}',
        f'{layer.weight_bytes / 1024:,.1f}',
        html.escape(f'float: {layer.reason}' if layer.reason else layer.weight),
        str(layer.weight_bits),
        html.escape(layer.activation),
        *(_cells(facts) if facts else [''] * len(_HEADINGS)),
    ]


def _activations(facts: Mapping[str, QuantizerFacts], costs: Mapping[str, float]) -> str:
    if not facts:
        return (
            '<p>Not drawn: <code>--data N</code> runs the model on N validation images. Models '
            'whose activations stay in float have none.</p>'
        )
    rows = [
        [
            *(_name(name), one.picture, html.escape(one.levels), str(one.bits), *_cells(one)),
            *_cost(costs, name),
        ]
        for name, one in facts.items()
    ]
    headings = ['quantizer', 'function', 'levels', 'bits', *_HEADINGS, *_cost_heading(costs)]
    return _table(headings, rows)


def _cost_heading(costs: Mapping[str, float]) -> list[str]:
    return ['sensitivity'] if costs else []


def _cost(costs: Mapping[str, float], quantizer: str) -> list[str]:
    """Return the cell of a quantizer; none where nothing was measured."""
    if not costs:
        return []
    return [f'{costs[quantizer]:.2g}' if quantizer in costs else '']


def _name(name: str) -> str:
    """Return a dotted name that narrow pages may break behind a dot."""
    return f'<code>{html.escape(name).replace(".", ".<wbr>")}</code>'


def _cells(facts: QuantizerFacts) -> list[str]:
    return [
        _scale(facts.alpha),
        _scale(facts.beta),
        _percent(facts.below),
        _percent(facts.above),
        _percent(facts.used),
        _percent(facts.error),
    ]


def _scale(spread: tuple[float, float, float]) -> str:
    low, middle, high = spread
    text = f'{middle:.3g}'
    return text if low == high else f'{text}<br><small>{low:.2g}..{high:.2g}</small>'


def _percent(share: float) -> str:
    return f'{100 * share:.2g}%' if 0 < share < 0.1 else f'{100 * share:.0f}%'


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = ''.join(f'<th>{heading}</th>' for heading in headings)
    body = '\n'.join(f'<tr>{"".join(f"<td>{cell}</td>" for cell in row)}</tr>' for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f'<tbody>{body}</tbody></table></div>'
    )


def _picture(picture: Picture) -> str:
    text = f'<h2>{html.escape(picture.title)}</h2><p>{html.escape(picture.text)}</p>'
    if picture.figure is None:
        return text
    content = io.BytesIO()
    picture.figure.savefig(content, format=picture.format, dpi=100)
    kind = {'svg': 'svg+xml', 'jpg': 'jpeg'}[picture.format]
    data = base64.b64encode(content.getvalue()).decode()
    return (
        f'{text}<div class="wide"><img alt="{html.escape(picture.title)}" '
        f'src="data:image/{kind};base64,{data}"></div>'
    )

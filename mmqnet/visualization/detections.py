"""Detections of several models beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from mmqnet.visualization.style import INK

# Light colours for black text, distinct for colour-blind readers.
_COLORS = (
    *('#E69F00', '#56B4E9', '#2BC49A', '#F0E442', '#FF8C52'),
    *('#E6A6CC', '#8FB8FF', '#D8D8D8', '#B5E853', '#C9A0FF'),
)
_COLUMN, _GAP, _MARGIN = 4.2, 0.06, 0.4  # inches
_TEXT_SIZE = 10.0  # points
_POINTS = 72  # an inch


class Box(NamedTuple):
    """A rectangle in pixels of a picture."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: 'Box') -> float:
        """Return the area that both have in common."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


@dataclass(frozen=True)
class Canvas:
    """A picture that labels are placed in; sizes in pixels of the picture."""

    width: float
    height: float
    inches: float  # how wide it is drawn

    def size_of(self, text: str) -> tuple[float, float]:
        """Return the width and the height of a label."""
        pixels = self.width / self.inches / _POINTS  # a point
        ink = TextPath((0, 0), text, size=_TEXT_SIZE).get_extents()
        return (ink.width + 5) * pixels, 1.25 * _TEXT_SIZE * pixels

    def place(self, box: Box, text: str, taken: Sequence[Box]) -> Box:
        """Return where a label hides the least of other labels: at a corner of its box."""
        w, h = self.size_of(text)
        left, top, right, bottom = box
        corners = [
            (left, top - h),
            (left, bottom),
            (right - w, top - h),
            (right - w, bottom),
            (left, top),
            (right - w, bottom - h),
        ]
        inside = [
            (min(max(x, 0.0), self.width - w), min(max(y, 0.0), self.height - h))
            for x, y in corners
        ]
        places = [Box(x, y, x + w, y + h) for x, y in inside]
        return min(places, key=lambda place: sum(place.overlap(other) for other in taken))


def draw_side_by_side(
    images: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[Any]],
    classes: Sequence[str],
    score_threshold: float = 0.5,
) -> Figure:
    """Draw one row for each model and one column for each image.

    Labels are placed where they do not hide each other, those of the highest scores first.

    Args:
        images: RGB pictures, (H, W, 3) uint8.
        predictions: From the title of a model, such as ``'float'``, to what
            ``mmdet.apis.inference_detector`` gave for the images, in their order.
        classes: Names of the classes.
        score_threshold: Boxes with a lower score are left out. Default 0.5.

    Raises:
        ValueError: If there is nothing to draw, or a model has not one result an image.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> instances = SimpleNamespace(
        ...     bboxes=torch.tensor([[5.0, 5.0, 40.0, 30.0]]), scores=torch.tensor([0.9]),
        ...     labels=torch.tensor([0]))
        >>> results = [SimpleNamespace(pred_instances=instances)]
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> figure = draw_side_by_side([image], {'float': results}, ['cat'])
        >>> figure.axes[0].texts[0].get_text()
        'cat 0.90'
    """
    _check(images, predictions)
    row_height = _COLUMN * max(image.shape[0] / image.shape[1] for image in images)
    width = _MARGIN + len(images) * (_COLUMN + _GAP)
    height = _MARGIN + len(predictions) * (row_height + _GAP)
    figure = Figure(figsize=(width, height), facecolor='white')  # no layout: labels need sizes
    FigureCanvasAgg(figure)
    for row, (title, results) in enumerate(predictions.items()):
        bottom = height - (row + 1) * (row_height + _GAP)
        for column, (image, result) in enumerate(zip(images, results, strict=True)):
            left = _MARGIN + column * (_COLUMN + _GAP)
            place = (left / width, bottom / height, _COLUMN / width, row_height / height)
            axes = figure.add_axes(place)
            _draw(axes, image, result.pred_instances, classes, score_threshold)
            if column == 0:
                axes.set_ylabel(title, size=15, weight='bold', color=INK)
    note = f'boxes with a score of at least {score_threshold:g}'
    figure.text(_MARGIN / width, 0.1 / height, note, size=12, color='#555B63')
    return figure


def _check(images: Sequence[np.ndarray], predictions: Mapping[str, Sequence[Any]]) -> None:
    if not len(images) or not predictions:
        raise ValueError('there is nothing to draw: give at least one image and one model')
    for title, results in predictions.items():
        if len(results) != len(images):
            raise ValueError(f'{title!r} has {len(results)} results for {len(images)} images')


def _draw(
    axes: Axes, image: np.ndarray, instances: Any, classes: Sequence[str], threshold: float
) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, interpolation='bicubic', extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[], anchor='N')
    axes.spines[:].set_visible(False)
    canvas = Canvas(width, height, _COLUMN)
    scores = instances.scores.cpu().numpy()
    boxes, labels = instances.bboxes.cpu().numpy(), instances.labels.cpu().numpy()
    shown = [i for i in np.argsort(-scores, kind='stable') if scores[i] >= threshold]
    taken: list[Box] = []
    for index in shown:
        color = _COLORS[labels[index] % len(_COLORS)]
        box = Box(*map(float, boxes[index]))
        _outline(axes, box, color)
        label = int(labels[index])
        name = classes[label] if label < len(classes) else str(label)
        text = f'{name} {scores[index]:.2f}'
        taken.append(canvas.place(box, text, taken))
        _write(axes, taken[-1], text, color)


def _outline(axes: Axes, box: Box, color: str) -> None:
    corner, size = (box.left, box.top), (box.right - box.left, box.bottom - box.top)
    axes.add_patch(Rectangle(corner, *size, fill=False, color='black', linewidth=3.2))
    axes.add_patch(Rectangle(corner, *size, fill=False, color=color, linewidth=1.8))


def _write(axes: Axes, place: Box, text: str, color: str) -> None:
    size = (place.right - place.left, place.bottom - place.top)
    corner = (place.left, place.top)
    axes.add_patch(Rectangle(corner, *size, facecolor=color, edgecolor='none', zorder=3))
    middle = ((place.left + place.right) / 2, (place.top + place.bottom) / 2)
    axes.text(*middle, text, size=_TEXT_SIZE, ha='center', va='center', clip_on=True, zorder=4)

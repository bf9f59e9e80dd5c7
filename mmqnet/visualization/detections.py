"""Detections of several models beside each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmqnet.visualization.style import INK, new_figure

# Light colours for black text, distinct for colour-blind readers.
_COLORS = ('#E69F00', '#56B4E9', '#2BC49A', '#F0E442', '#FF8C52', '#E6A6CC', '#8FB8FF', '#D8D8D8')
_COLUMN = 2.3  # inches


def draw_side_by_side(
    images: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[Any]],
    classes: Sequence[str],
    score_threshold: float = 0.4,
) -> Figure:
    """Draw one row for each model and one column for each image.

    Args:
        images: RGB pictures, (H, W, 3) uint8.
        predictions: From the title of a model, such as ``'float'``, to what
            ``mmdet.apis.inference_detector`` gave for the images, in their order.
        classes: Names of the classes.
        score_threshold: Boxes with a lower score are left out.

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
    if not len(images) or not predictions:
        raise ValueError('there is nothing to draw: give at least one image and one model')
    for title, results in predictions.items():
        if len(results) != len(images):
            raise ValueError(f'{title!r} has {len(results)} results for {len(images)} images')
    ratio = sum(image.shape[0] / image.shape[1] for image in images) / len(images)
    width = _COLUMN * len(images) + 0.4
    figure = new_figure((_COLUMN * ratio + 0.05) * len(predictions) + 0.3, width)
    grid = figure.subplots(len(predictions), len(images), squeeze=False)
    for row, (title, results) in zip(grid, predictions.items(), strict=True):
        for axes, image, result in zip(row, images, results, strict=True):
            _draw(axes, image, result.pred_instances, classes, score_threshold)
        row[0].set_ylabel(title, size=11, weight='bold', color=INK)
    figure.supxlabel(f'boxes with a score of at least {score_threshold:g}', size=9, color='#555B63')
    return figure


def _draw(
    axes: Axes, image: np.ndarray, instances: Any, classes: Sequence[str], threshold: float
) -> None:
    axes.imshow(image, interpolation='bicubic')
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    scores = instances.scores.cpu().numpy()
    boxes, labels = instances.bboxes.cpu().numpy(), instances.labels.cpu().numpy()
    for index in np.flatnonzero(scores >= threshold):
        left, top, right, bottom = boxes[index]
        color = _COLORS[labels[index] % len(_COLORS)]
        size = (right - left, bottom - top)
        axes.add_patch(Rectangle((left, top), *size, fill=False, color='black', linewidth=2.6))
        axes.add_patch(Rectangle((left, top), *size, fill=False, color=color, linewidth=1.4))
        axes.text(
            left,
            top,
            f'{classes[labels[index]]} {scores[index]:.2f}',
            size=6.5,
            va='bottom' if top > 0.08 * image.shape[0] else 'top',
            bbox=dict(facecolor=color, edgecolor='none', pad=1),
            clip_on=True,
        )

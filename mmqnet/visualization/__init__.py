"""Pictures of a quantized model: its functions, their values, its training, its detections."""

from matplotlib.figure import Figure

from mmqnet.visualization.detections import draw_side_by_side
from mmqnet.visualization.gap import GapCurve, draw_gap, read_gap
from mmqnet.visualization.images import load_images, read_pictures
from mmqnet.visualization.overview import draw_overview
from mmqnet.visualization.sensitivity import draw_frontier, draw_sensitivities
from mmqnet.visualization.sources import (
    LayerValues,
    check_layer,
    collect_inputs,
    input_names,
    weight_names,
    weight_values,
)
from mmqnet.visualization.staircase import draw_curves, draw_staircase
from mmqnet.visualization.style import check_picture_path, save_figure

__all__ = [
    'Figure',
    'GapCurve',
    'LayerValues',
    'check_layer',
    'check_picture_path',
    'collect_inputs',
    'draw_curves',
    'draw_frontier',
    'draw_gap',
    'draw_overview',
    'draw_sensitivities',
    'draw_side_by_side',
    'draw_staircase',
    'input_names',
    'load_images',
    'read_gap',
    'read_pictures',
    'save_figure',
    'weight_names',
    'weight_values',
]

"""Calibration of a whole network by the paper's recipe, without the forward passes."""

import functools
from typing import Any

import torch
from measuring import CLOCKS, Cases, Ratio, Row, Settings
from networks import NETWORKS, build_model, run_network, shrink
from torch import Tensor, nn

from mmqnet.calibration import calibrate
from mmqnet.quantizers import Quantizer, quantizers_of

RECIPE = 'w3-a8'  # k-means of weights and of activations, these with 255 thresholds
IMAGES = 1000
MOST_SECONDS = 60


def cases(settings: Settings) -> Cases:
    """Return the only case."""
    name, images = ('ResNet-18', 4) if settings.quick else ('SSD300-VGG16', IMAGES)
    return {f'{name}, {images:,} images': functools.partial(measure, name, images, settings)}


def measure(name: str, images: int, settings: Settings) -> Row:
    """Time one calibration, with the inputs of one batch repeated."""
    network = shrink(NETWORKS[name]) if settings.quick else NETWORKS[name]
    model, batch, _ = build_model(network, RECIPE, network.batch_size)
    inputs = inputs_of_quantizers(model, batch)

    def hand_out(_: int) -> None:
        for quantizer, x in inputs:
            quantizer(x)

    clock = CLOCKS[settings.clock]
    start = clock()
    calibrate(model, range(images // network.batch_size), hand_out)
    seconds = clock() - start
    return Row({'seconds': Ratio(seconds, at_most=MOST_SECONDS)}, dict(seconds=seconds))


@torch.no_grad()
def inputs_of_quantizers(model: nn.Module, batch: dict[str, Any]) -> list[tuple[Quantizer, Tensor]]:
    """Return the input of each quantizer in one float forward pass."""
    inputs: list[tuple[Quantizer, Tensor]] = []
    for quantizer in quantizers_of(model).values():
        quantizer.observer = lambda x, quantizer=quantizer: inputs.append((quantizer, x))
    run_network(model.eval(), batch)
    for quantizer in quantizers_of(model).values():
        quantizer.observer = None
    return inputs

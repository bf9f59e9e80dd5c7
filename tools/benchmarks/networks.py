"""Real models of the shipped configs, float and quantized, with synthetic batches."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import mmqnet  # noqa: F401 -- repairs upstream faults before anything else is imported
from mmqnet.calibration import calibrate
from mmqnet.quantizers import quantizers_of

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FLOAT = 'float'


@dataclass(frozen=True)
class Network:
    """A config with the size of its inputs.

    Attributes:
        config: File below ``configs/`` of what all quantized versions of the model share.
        batch_size: Images of a training step.
        image_size: Side of an image in pixels.
        temperature: T of all quantizers.
    """

    config: str
    batch_size: int
    image_size: int
    temperature: float = 50.0


NETWORKS = {
    'SSD300-VGG16': Network('ssd/_base_/ssd300_coco.py', 4, 300),
    'ResNet-18': Network('resnet/_base_/resnet18_in1k.py', 16, 224),
    'RetinaNet-R18': Network('retinanet/_base_/retinanet_r18_fpn_1x_coco.py', 2, 320),
}
# Networks and recipes of a quick run, without targets.
QUICK: dict[str, dict[str, float | None]] = {'ResNet-18': {'w2-a2': None}}


@dataclass
class Run:
    """A model that is trained or evaluated on one batch.

    Attributes:
        model: Float or quantized and calibrated.
        batch: As a data loader gives it.
        optim_wrapper: As in the config.
    """

    model: nn.Module
    batch: dict[str, Any]
    optim_wrapper: Any

    def train(self) -> None:
        """Run one training step: forward, backward, clipping, optimizer."""
        self.model.train()
        losses = self.model.train_step(self.batch, self.optim_wrapper)
        if not math.isfinite(losses['loss']):
            raise ArithmeticError(f'the loss is {losses["loss"]}')

    @torch.no_grad()
    def evaluate(self) -> None:
        """Run the network on images up to its raw outputs."""
        run_network(self.model.eval() or self.model, self.batch)


def shrink(network: Network) -> Network:
    """Return the same model on two small images."""
    return replace(network, batch_size=2, image_size=64)


def run_network(model: nn.Module, batch: dict[str, Any]) -> None:
    """Preprocess a batch and compute the raw outputs."""
    model(**model.data_preprocessor(batch, False), mode='tensor')


def build_run(network: Network, recipe: str, what: str) -> Run:
    """Build a model and calibrate it on its batch.

    Args:
        network: Which model.
        recipe: Name of a recipe in ``configs/_base_/quantization``, or ``'float'``.
        what: ``'train'``, or ``'evaluate'`` for a batch of one image.
    """
    batch_size = network.batch_size if what == 'train' else 1
    model, batch, config = build_model(network, recipe, batch_size)
    calibrate(model, [batch], lambda data: run_network(model, data))
    for quantizer in quantizers_of(model).values():
        quantizer.set_temperature(network.temperature)
    return Run(model, batch, build_optim_wrapper(model, config.optim_wrapper))


def build_model(
    network: Network, recipe: str, batch_size: int
) -> tuple[nn.Module, dict[str, Any], Config]:
    """Return a model with random weights, not calibrated, a batch and the config."""
    MMLogger.get_instance('benchmarks', log_level='WARNING')  # no tables of layers on the screen
    torch.manual_seed(0)
    config = Config.fromfile(CONFIGS / network.config)
    init_default_scope(config.default_scope)
    batch = make_batch(config, batch_size, network.image_size)
    model = MODELS.build(model_config(config, recipe))
    model.init_weights()
    return model, batch, config


def model_config(config: Config, recipe: str) -> dict[str, Any]:
    """Return the config of the model with a recipe, without files to download."""
    model = config.model.to_dict()
    model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    model['backbone']['init_cfg'] = None
    if recipe == FLOAT:
        model['type'] = model.pop('architecture')
        model.pop('quantization', None)
        return model
    levels = Config.fromfile(CONFIGS / '_base_' / 'quantization' / f'{recipe}.py').quantization
    model['quantization'] = {**model.get('quantization', {}), **levels.to_dict()}
    return model


def make_batch(config: Config, batch_size: int, image_size: int) -> dict[str, Any]:
    """Return noise as images, with random boxes or classes."""
    shape = (3, image_size, image_size)
    if config.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(batch_size, shape, num_items=[4] * batch_size, num_classes=80)
    from mmpretrain.structures import DataSample

    images = torch.randint(256, (batch_size, *shape), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(i) for i in range(batch_size)]
    return dict(inputs=list(images), data_samples=samples)

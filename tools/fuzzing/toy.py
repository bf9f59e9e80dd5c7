"""A model, data and a runner that are built in a moment."""

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmqnet.command_line import build_runner

SIZE = 16
QUANTIZATION = dict(weight=dict(levels='pm4'), activation=dict(levels='uint4'))


@MODELS.register_module()
class FuzzedNetwork(BaseModel):
    """Four layers; a loss of nothing in particular."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, stride=2)
        self.norm = nn.BatchNorm2d(channels)
        self.middle = nn.Conv2d(channels, channels, 3)
        self.hidden = nn.Linear(channels, channels)
        self.last = nn.Linear(channels, 2)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Return outputs, or with the mode ``'loss'`` losses."""
        x = torch.stack(list(inputs)) if not isinstance(inputs, torch.Tensor) else inputs
        x = self.middle(self.norm(self.first(x)).relu()).relu().mean((2, 3))
        outputs = self.last(self.hidden(x).relu())
        return dict(loss=outputs.square().mean()) if mode == 'loss' else outputs


def model_config(quantization: Any = None) -> dict[str, Any]:
    """Return the config of the quantized model."""
    quantization = QUANTIZATION if quantization is None else quantization
    return dict(
        type='mmqnet.QuantizedModel', architecture='FuzzedNetwork', quantization=quantization
    )


def pictures(count: int = 4) -> torch.Tensor:
    """Return random pictures (count, 3, SIZE, SIZE)."""
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@DATASETS.register_module()
class FuzzedPictures(Dataset[Any]):
    """The random pictures; in a config their numbers would be written out with each checkpoint."""

    def __init__(self) -> None:
        self._pictures = pictures()

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= len(self):
            raise IndexError(index)
        return dict(inputs=self._pictures[index], data_samples=0)


def make_runner(folder: Path, epochs: int, hooks: dict[str, Any]) -> Runner:
    """Return a runner whose epochs have two iterations."""
    return build_runner(
        Config(
            dict(
                model=model_config(),
                work_dir=str(folder),
                train_dataloader=dict(
                    dataset=dict(type='FuzzedPictures'),
                    sampler=dict(type='DefaultSampler', shuffle=True),
                    batch_size=2,
                    collate_fn=dict(type='pseudo_collate'),
                ),
                train_cfg=dict(by_epoch=True, max_epochs=epochs),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
                param_scheduler=[
                    dict(type='LinearLR', start_factor=0.1, end=2, by_epoch=False),
                    dict(type='OneCycleLR', eta_max=0.1, total_steps=8, by_epoch=False),
                ],
                default_hooks=hooks,
                log_level='ERROR',
                launcher='none',
                randomness=dict(seed=0),
            )
        )
    )

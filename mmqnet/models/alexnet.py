"""AlexNet with batch normalization, which MMPretrain lacks."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmqnet.registry import MODELS

_FEATURE_SIZE = 6  # height and width of the last feature map, of an input of 224 x 224


@MODELS.register_module()
class AlexNetBN(BaseModule):
    """AlexNet without groups, with batch normalization after each layer instead of dropout.

    Every layer is Conv-BN-ReLU(-Pool) or Linear-BN-ReLU, so that its output, which the next layer
    quantizes, is not negative. The last fully connected layer is the classification head's.

    Args:
        channels: Output channels of the five convolutions.
        hidden_channels: Outputs of the two fully connected layers.
        init_cfg: Initialisation, see ``BaseModule``.

    Raises:
        ValueError: If the channels are not five, or a width is not positive.

    Example:
        >>> import torch
        >>> model = AlexNetBN(channels=[8] * 5, hidden_channels=16).eval()
        >>> model(torch.rand(1, 3, 224, 224))[0].shape
        torch.Size([1, 16])
    """

    def __init__(
        self,
        channels: Sequence[int] = (96, 256, 384, 384, 256),
        hidden_channels: int = 4096,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = [
                dict(type='Kaiming', layer=['Conv2d', 'Linear'], nonlinearity='relu'),
                dict(type='Constant', val=1, layer=['BatchNorm1d', 'BatchNorm2d']),
            ]
        super().__init__(init_cfg)
        if len(channels) != 5:
            raise ValueError(f'`channels` should be of 5 convolutions, but got {channels!r}')
        for key, widths in (('channels', channels), ('hidden_channels', [hidden_channels])):
            if min(widths) < 1:
                raise ValueError(f'`{key}` should be positive, but got {min(widths)}')
        conv1, conv2, conv3, conv4, conv5 = channels
        self.features = nn.Sequential(
            *_convolution(3, conv1, 11, stride=4, padding=2),
            nn.MaxPool2d(3, stride=2),
            *_convolution(conv1, conv2, 5, padding=2),
            nn.MaxPool2d(3, stride=2),
            *_convolution(conv2, conv3, 3, padding=1),
            *_convolution(conv3, conv4, 3, padding=1),
            *_convolution(conv4, conv5, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            *_fully_connected(conv5 * _FEATURE_SIZE**2, hidden_channels),
            *_fully_connected(hidden_channels, hidden_channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the features of images ``x`` (N, 3, 224, 224), a tuple of one tensor (N, hidden).

        Raises:
            ValueError: If the images have a size that does not give 6 x 6 features.
        """
        features = self.features(x)
        if features.shape[-2:] != (_FEATURE_SIZE, _FEATURE_SIZE):
            raise ValueError(
                f'the images should have 224 x 224 pixels, but got {x.shape[-2]} x {x.shape[-1]}'
            )
        return (self.classifier(features),)


def _convolution(inputs: int, outputs: int, kernel: int, **conv: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, bias=False, **conv),  # type: ignore[arg-type]
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def _fully_connected(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Linear(inputs, outputs, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(inplace=True),
    ]

"""AlexNetBN: what it refuses; the recipes that use it are trained in `tests/test_configs`."""

import pytest
import torch

from mmqnet.models import AlexNetBN

SMALL = dict(channels=(2, 2, 2, 2, 2), hidden_channels=4)


@pytest.mark.parametrize('size', [224, 240])
def test_features(size):
    """Sizes that leave 6 x 6 features, as 224 x 224 does."""
    (features,) = AlexNetBN(**SMALL)(torch.rand(2, 3, size, size))
    assert features.shape == (2, 4)


def test_layers():
    model = AlexNetBN(**SMALL)
    conv, linear = ('Conv2d', 'BatchNorm2d', 'ReLU'), ('Linear', 'BatchNorm1d', 'ReLU')
    features = [type(module).__name__ for module in model.features]
    assert features == [
        *(*conv, 'MaxPool2d', *conv, 'MaxPool2d'),
        *(*conv, *conv, *conv, 'MaxPool2d'),
    ]
    assert [type(module).__name__ for module in model.classifier] == ['Flatten', *linear, *linear]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(channels=(2, 2, 2)), r'`channels` should be of 5 convolutions, but got \(2, 2, 2\)'),
        (dict(channels=(2, 2, 0, 2, 2)), '`channels` should be positive, but got 0'),
        (dict(hidden_channels=0), '`hidden_channels` should be positive, but got 0'),
    ],
)
def test_wrong_widths(options, message):
    with pytest.raises(ValueError, match=message):
        AlexNetBN(**{**SMALL, **options})


def test_images_of_another_size():
    with pytest.raises(ValueError, match='should have 224 x 224 pixels, but got 256 x 224'):
        AlexNetBN(**SMALL)(torch.rand(2, 3, 256, 224))

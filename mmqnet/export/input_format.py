"""How a config's test pipeline and preprocessor make a model's input, as a file's metadata."""

import math
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmqnet.checks import check_positive_integer

Settings = dict[str, Any]


def input_format(config: Config, mean: list[float], std: list[float], inside: bool) -> Settings:
    """Return the values of :class:`FileMetadata` that describe the input.

    Args:
        config: With the test pipeline and ``model.data_preprocessor``.
        mean: Of the channels in the network's order.
        std: Likewise.
        inside: Whether the file normalizes. Then its input is RGB, as most libraries read pictures;
            otherwise the channels are in the network's order.

    Raises:
        ValueError: If pictures are resized by another edge than the short one.
    """
    preprocessor = _preprocessor(config)
    is_rgb = bool(preprocessor.get('bgr_to_rgb') or preprocessor.get('rgb_to_bgr'))
    padding = _pipeline_padding(config)
    if padding is None:  # MMDetection pads after normalizing
        pads = [m + preprocessor.get('pad_value', 0) * s for m, s in zip(mean, std, strict=True)]
    else:
        pads = padding[::-1] if is_rgb else padding
    if not inside:
        pads = [(p - m) / s for p, m, s in zip(pads, mean, std, strict=True)]
    elif not is_rgb:
        mean, std, pads = mean[::-1], std[::-1], pads[::-1]
    resize, edge = (next(_transforms(config, kind), {}) for kind in ('Resize', 'ResizeEdge'))
    return dict(
        channel_order='rgb' if inside or is_rgb else 'bgr',
        normalize='inside' if inside else 'outside',
        mean=tuple(mean),
        std=tuple(std),
        pad_value=tuple(pads),
        keep_ratio=bool(resize.get('keep_ratio', False)),
        resize_scale=_limits(resize),
        resize_edge=_short_edge(edge),
        resize_interpolation=(edge or resize).get('interpolation', 'bilinear'),
        resize_backend=(edge or resize).get('backend', 'cv2'),
    )


def default_shape(config: Config) -> tuple[int, int]:
    """Return the height and width of the input that a config's test pipeline makes.

    Images whose ratio is kept may lie or stand, so both sides are as long as the longer one, a
    multiple of the preprocessor's ``pad_size_divisor``.

    Raises:
        ValueError: If the pipeline does not say it.

    Example:
        >>> pipeline = [dict(type='Resize', scale=(1333, 800), keep_ratio=True)]
        >>> settings = dict(data_preprocessor=dict(pad_size_divisor=32))
        >>> loader = dict(dataset=dict(pipeline=pipeline))
        >>> default_shape(Config(dict(model=settings, test_dataloader=loader)))
        (1344, 1344)
    """
    divisor = _preprocessor(config).get('pad_size_divisor', 1)
    for kind, key in (('CenterCrop', 'crop_size'), ('Pad', 'size'), ('Resize', 'scale')):
        found = next((t for t in _transforms(config, kind) if t.get(key)), None)
        if found is None:
            continue
        width, height = _pair(found[key])
        if kind == 'Resize' and found.get('keep_ratio'):
            width = height = max(width, height)
        return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor
    raise ValueError(
        'the test pipeline should have a Resize with `scale`, a Pad with `size` or a CenterCrop '
        f'with `crop_size`, but got {[t.get("type") for t in _pipeline(config)]}; name the shape'
    )


def check_shape(shape: Any) -> tuple[int, int]:
    """Check a height and width in pixels.

    Raises:
        TypeError: If there are not two integers.
        ValueError: If one is not positive.
    """
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise TypeError(f'`shape` should be a height and a width, but got {shape!r}')
    for side in shape:
        check_positive_integer(side, 'shape')
    return shape[0], shape[1]


def classes_of(config: Config) -> tuple[str, ...]:
    """Return the names of the classes of the config's test data; none if it does not say them."""
    dataset = _test_dataset(config)
    named = (dataset.get('metainfo') or {}).get('classes')
    if named is None and dataset.get('type') is not None:
        scope = config.get('default_scope')
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = dataset.type if isinstance(dataset.type, type) else registry.get(dataset.type)
        named = getattr(kind, 'METAINFO', {}).get('classes')
    return (named,) if isinstance(named, str) else tuple(named or ())


def _preprocessor(config: Config) -> Settings:
    model = config.get('model') or {}
    return model.get('data_preprocessor') or config.get('data_preprocessor') or {}


def _test_dataset(config: Config) -> Any:
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    while dataset.get('dataset') or dataset.get('datasets'):  # a wrapper
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset


def _pipeline(config: Config) -> list[Settings]:
    return list(_test_dataset(config).get('pipeline') or ())


def _transforms(config: Config, kind: str) -> Iterator[Settings]:
    for transform in _pipeline(config):
        name = getattr(transform.get('type'), '__name__', str(transform.get('type')))
        if name.rpartition('.')[2] == kind:
            yield transform


def _pipeline_padding(config: Config) -> list[float] | None:
    """Return what the pipeline pads images with, in BGR; None if it does not."""
    pad = next(_transforms(config, 'Pad'), None)
    if pad is None:
        return None
    value = pad.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, dict) else value
    return [float(v) for v in value] if isinstance(value, tuple | list) else [float(value)] * 3


def _short_edge(resize: Settings) -> int:
    if resize.get('edge', 'short') != 'short':
        raise ValueError(
            f"`edge` of the test pipeline's ResizeEdge should be 'short', but got "
            f'{resize["edge"]!r}: a file does not say how pictures are resized that way'
        )
    return int(resize.get('scale', 0))


def _limits(resize: Settings) -> tuple[int, int]:
    if not resize.get('keep_ratio') or not isinstance(resize.get('scale'), tuple | list):
        return 0, 0
    return max(resize['scale']), min(resize['scale'])


def _pair(value: Any) -> tuple[int, int]:
    """Return width and height; one number stands for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])

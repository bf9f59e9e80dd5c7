"""From pictures to the input of a file."""

import numpy as np

from mmqnet.export.metadata import FileMetadata


def to_input(image: np.ndarray, metadata: FileMetadata) -> np.ndarray:
    """Return an image as the file takes it: channels in order, normalized if need be, padded.

    Args:
        image: (3, h, w) in BGR, 0..255, as a data pipeline of MMDetection gives it.
        metadata: Of the file.

    Returns:
        numpy.ndarray: (3, H, W) float32.

    Raises:
        ValueError: If the image does not fit.
    """
    if image.ndim != 3:
        raise ValueError(f'an image should be of shape (3, h, w), but got {image.shape}')
    height, width = metadata.input_size
    channels, h, w = image.shape
    fits = (h <= height and w <= width) if metadata.keep_ratio else (h, w) == (height, width)
    if channels != 3 or not fits:
        most = 'at most ' if metadata.keep_ratio else ''
        raise ValueError(
            f'the data pipeline should give images of {most}3 x {height} x {width}, the input of '
            f'the file, but got {channels} x {h} x {w}: export it with --shape, or change the '
            'Resize of `test_dataloader.dataset.pipeline`'
        )
    if metadata.channel_order == 'rgb':
        image = image[::-1]
    image = image.astype(np.float32)
    if metadata.normalize == 'outside':
        image = (image - _per_channel(metadata.mean)) / _per_channel(metadata.std)
    padded = np.empty((3, height, width), np.float32)
    padded[:] = _per_channel(metadata.pad_value)
    padded[:, :h, :w] = image
    return padded


def resize(image: np.ndarray, metadata: FileMetadata) -> tuple[np.ndarray, tuple[float, float]]:
    """Return an image resized as the config's test pipeline does, and the factors of both sides.

    Args:
        image: (h, w, 3).
        metadata: Of the file.

    Returns:
        tuple: The image (h', w', 3), and the factors of width and height.
    """
    import mmcv

    height, width = metadata.input_size
    h, w = image.shape[:2]
    size = (width, height)
    if metadata.resize_edge:
        edge = metadata.resize_edge  # ResizeEdge rounds down
        size = (edge, int(edge * h / w)) if w < h else (int(edge * w / h), edge)
        size = (max(width, size[0]), max(height, size[1]))
    elif metadata.keep_ratio:
        factor = min(width / w, height / h)
        if all(metadata.resize_scale):
            long, short = metadata.resize_scale
            factor = min(factor, long / max(h, w), short / min(h, w))
        size = (min(width, int(w * factor + 0.5)), min(height, int(h * factor + 0.5)))
    image = mmcv.imresize(
        image,
        size,
        interpolation=metadata.resize_interpolation,
        backend=metadata.resize_backend,
    )
    return image, (size[0] / w, size[1] / h)


def crop_center(image: np.ndarray, metadata: FileMetadata) -> np.ndarray:
    """Return the middle of an image (h, w, 3), of the file's height and width."""
    height, width = metadata.input_size
    top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]


def check_picture(image: np.ndarray) -> None:
    """Check that an array is a picture (h, w, 3).

    Raises:
        TypeError: If its numbers are neither uint8 nor floats.
        ValueError: If it has another shape.
    """
    if image.dtype not in (np.uint8, np.float32, np.float64):
        raise TypeError(f'the image should be of uint8 or floats, but got {image.dtype}')
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f'the image should be of shape (h, w, 3), in BGR, but got {image.shape}')


def _per_channel(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32).reshape(3, 1, 1)

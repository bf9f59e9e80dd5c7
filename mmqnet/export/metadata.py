"""What an exported file says about itself: the strings of its ``metadata_props``."""

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from typing_extensions import Self

from mmqnet.checks import check_choice, is_list_of_numbers
from mmqnet.version import __version__

_CHOICES = dict(
    task=('detection', 'classification'),
    outputs=('boxes', 'scores', 'raw'),
    resize_interpolation=('nearest', 'bilinear', 'bicubic', 'area', 'box', 'lanczos', 'hamming'),
    resize_backend=('cv2', 'pillow'),
)
_CLEARLY = 1e-3  # of a pixel's step: more than rounding


@dataclass(frozen=True)
class FileMetadata:
    """How the input of a file is made, and what its outputs mean.

    Attributes:
        task: ``'detection'`` or ``'classification'``.
        outputs: ``'boxes'`` after NMS, ``'scores'`` of classes, or ``'raw'`` outputs of a head.
        input_size: Height and width of the input in pixels.
        classes: Names of the classes, by label; empty where nobody knew them.
        channel_order: ``'rgb'`` or ``'bgr'``, of the input.
        normalize: ``'inside'`` if the input is 0..255, ``'outside'`` if it is ``(x - mean) / std``.
        mean: Of each channel of the input; informs only, if the file normalizes.
        std: Likewise.
        keep_ratio: Whether images are resized with their ratio kept, then padded on the right and
            at the bottom; otherwise they are resized to ``input_size``.
        pad_value: Of each channel of the input, as the file takes it.
        resize_scale: Limits of the longer and the shorter side, where the ratio is kept; 0 for
            none.
        resize_edge: Length of the short edge before the center is cropped; 0 for no such crop.
        resize_interpolation: How, by MMCV's name.
        resize_backend: By which of MMCV's backends, ``'cv2'`` or ``'pillow'``.
        clip_border: Whether boxes end at the border of the image, or of what the data pipeline has
            padded it to.
        score_threshold: Below it no box is reported.
        iou_threshold: Of the NMS.
        class_agnostic: Whether boxes of different classes suppress each other.
        max_per_image: K, the rows of ``dets``.
        layers: Bits of each quantized layer, ``{name: {'weight': 4, 'input': 8}}``; what is not
            named is in float.
        mmqnet_version: That wrote the file.
        torch_version: That wrote the file.
    """

    task: str
    outputs: str
    input_size: tuple[int, int]
    classes: tuple[str, ...] = ()
    channel_order: str = 'rgb'
    normalize: str = 'inside'
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    keep_ratio: bool = False
    pad_value: tuple[float, ...] = (0.0, 0.0, 0.0)
    resize_scale: tuple[int, int] = (0, 0)
    resize_edge: int = 0
    resize_interpolation: str = 'bilinear'
    resize_backend: str = 'cv2'
    clip_border: bool = True
    score_threshold: float = 0.0
    iou_threshold: float = 0.0
    class_agnostic: bool = False
    max_per_image: int = 0
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    mmqnet_version: str = __version__
    torch_version: str = ''

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        return replace(self, **changes)

    @property
    def channel_of_padding(self) -> int | None:
        """The channel of the input in which padding is no integer, so that no pixel is like it.

        None where images are not padded, or padding may look like pixels.

        Example:
            >>> file = FileMetadata('detection', 'boxes', (64, 64), keep_ratio=True,
            ...                     pad_value=(104.0, 116.28, 123.675))
            >>> file.channel_of_padding
            1
        """
        pads = self.pad_value
        if self.normalize == 'outside':
            pads = tuple(p * s + m for p, s, m in zip(pads, self.std, self.mean, strict=True))
        found = [i for i, pad in enumerate(pads) if abs(pad - round(pad)) > _CLEARLY]
        return found[0] if found and self.keep_ratio else None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the keys of the strings."""
        return tuple(item.name for item in fields(cls))

    def to_strings(self) -> dict[str, str]:
        """Return the strings of ``metadata_props``: text as it is, all else as JSON.

        Example:
            >>> file = FileMetadata('detection', 'boxes', (300, 300), ('cat', 'dog'))
            >>> strings = file.to_strings()
            >>> strings['task'], strings['input_size'], strings['classes']
            ('detection', '[300, 300]', '["cat", "dog"]')
        """
        values = {name: getattr(self, name) for name in self.names()}
        return {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in values.items()
        }

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], path: str) -> Self:
        """Read the strings of a file; keys of others are ignored.

        Args:
            strings: The file's ``metadata_props``.
            path: Of the file, for messages.

        Raises:
            ValueError: If the file was not written by mmqnet.
        """
        missing = [name for name in ('task', 'outputs', 'input_size') if name not in strings]
        if missing:
            raise ValueError(
                f'the file {path!r} should be one that mmqnet has exported, but its metadata lacks '
                f'{missing}'
            )
        values: dict[str, Any] = {}
        for item in fields(cls):
            if item.name in strings:
                values[item.name] = _parsed(item, strings[item.name], path)
        for name, choices in _CHOICES.items():
            if name in values:
                check_choice(values[name], choices, name)
        return cls(**values)


def _parsed(item: Field[Any], text: str, path: str) -> Any:
    """Return the value of a string, of the type and length that its default or its name has."""
    if item.type in (str, 'str'):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    value = tuple(value) if isinstance(value, list) else value
    if not _is_right(item.name, value, item.default):
        raise ValueError(f'`{item.name}` in the metadata of {path!r} is damaged: {text[:60]!r}')
    return value


def _is_right(name: str, value: Any, default: Any) -> bool:
    if name == 'layers':
        return isinstance(value, dict)
    if name == 'classes':
        return isinstance(value, tuple) and all(isinstance(v, str) for v in value)
    if name == 'input_size':
        is_pair = isinstance(value, tuple) and len(value) == 2
        return is_pair and all(type(v) is int and v > 0 for v in value)
    if isinstance(default, tuple):
        return is_list_of_numbers(value) and len(value) == len(default)
    if isinstance(default, bool):
        return isinstance(value, bool)
    return is_list_of_numbers([value])

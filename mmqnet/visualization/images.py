"""Images to run a model on: those of a data loader, or pictures in files."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner

_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def load_images(config: Config, key: str, count: int) -> Iterator[Any]:
    """Yield the first images of a data loader in batches of one.

    Args:
        config: The config.
        key: Of the data loader, such as ``'val_dataloader'``.
        count: How many images.

    Raises:
        ValueError: If the config has no such data loader.

    Example:
        >>> loader = dict(
        ...     dataset=[1.0, 2.0, 3.0], collate_fn=dict(type='default_collate'),
        ...     sampler=dict(type='DefaultSampler', shuffle=False))
        >>> config = Config(dict(val_dataloader=loader))
        >>> [batch.tolist() for batch in load_images(config, 'val_dataloader', 2)]
        [[1.0], [2.0]]
    """
    if not config.get(key):
        raise ValueError(f'the config has no `{key}`')
    loader = copy.deepcopy(config[key])
    loader.update(batch_size=1, num_workers=0, persistent_workers=False)
    for unused in ('batch_sampler', 'prefetch_factor'):
        loader.pop(unused, None)
    yield from itertools.islice(Runner.build_dataloader(loader, seed=0), count)


def read_pictures(paths: Sequence[str | Path], count: int) -> list[np.ndarray]:
    """Read the first pictures among files and what is in folders, in the order of their names.

    Args:
        paths: Pictures, and folders of pictures.
        count: How many pictures at most.

    Returns:
        list[numpy.ndarray]: BGR, (H, W, 3) uint8.

    Raises:
        FileNotFoundError: If a path does not exist, or there is no picture.
        ValueError: If a file cannot be read as a picture.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), 'a.png')
        >>> _ = mmcv.imwrite(np.zeros((4, 6, 3), np.uint8), str(path))
        >>> [picture.shape for picture in read_pictures([path.parent], 5)]
        [(4, 6, 3)]
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f'the picture or folder {str(path)!r} does not exist')
        if path.is_dir():
            found += sorted(item for item in path.iterdir() if item.suffix.lower() in _SUFFIXES)
        else:
            found.append(path)
    if not found:
        names = ', '.join(repr(str(path)) for path in paths)
        raise FileNotFoundError(f'no pictures ({", ".join(_SUFFIXES)}) in {names}')
    pictures = []
    for path in found[:count]:
        picture = mmcv.imread(path)
        if picture is None:
            raise ValueError(f'{str(path)!r} cannot be read as a picture')
        pictures.append(picture)
    return pictures

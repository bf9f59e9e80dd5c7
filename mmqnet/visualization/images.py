"""The images of a data loader, for pictures of activations."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner


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

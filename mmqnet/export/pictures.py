"""Pictures of a config's test data as the input of an exported file."""

import copy
import itertools
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmqnet.export.metadata import FileMetadata
from mmqnet.export.runtime.images import to_input


def loader_of_test_data(config: Config) -> DataLoader:
    """Return the loader of the test data, picture by picture.

    Args:
        config: With ``test_dataloader``.

    Raises:
        ValueError: If the config has no test data.
    """
    if not config.get('test_dataloader'):
        raise ValueError('comparing on pictures needs `test_dataloader` in the config')
    init_default_scope(config.get('default_scope') or 'mmengine')
    loader = copy.deepcopy(config.test_dataloader)
    loader.update(batch_size=1, num_workers=0, persistent_workers=False)
    return Runner.build_dataloader(loader)


def pictures(config: Config, metadata: FileMetadata, count: int) -> Iterator[tuple[Tensor]]:
    """Yield inputs (1, 3, H, W) of the first pictures of the test data.

    Args:
        config: With ``test_dataloader``.
        metadata: Of the file, or of the module that is exported.
        count: How many pictures at most.

    Raises:
        ValueError: If the config has no test data, or the file does not take its pictures.
    """
    for batch in itertools.islice(loader_of_test_data(config), count):
        yield (torch.from_numpy(to_input(batch['inputs'][0].numpy(), metadata))[None],)

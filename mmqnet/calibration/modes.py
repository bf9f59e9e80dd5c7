"""Training and evaluation mode of all modules, which frozen stages set one by one."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Set every module to the mode in which it was before, behind the block."""
    training = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training

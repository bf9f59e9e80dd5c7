"""Mixed precision where MMEngine has none: on CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner.amp import autocast
from torch import nn

from mmqnet.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Run the forward passes of a training in bfloat16, on a CPU or a GPU.

    MMEngine's ``AmpOptimWrapper`` refuses CPUs because of its loss scaler. bfloat16 needs none: it
    has the range of float32. Arguments as for ``OptimWrapper``.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> wrapper = BFloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        >>> with wrapper.optim_context(model):
        ...     model(torch.rand(1, 4)).dtype
        torch.bfloat16
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass of a training step in bfloat16."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
